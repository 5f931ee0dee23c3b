"""What the AE Title processor's settings take, and what is refused before anything starts."""

from pathlib import Path

import pytest

from dicom_adapter.config.reference import rows
from dicom_adapter.errors import ConfigError
from processors.ae_title import AETitleSettings
from tests.processors.tools import ROOT, config, title
from tests.support import settings_of

START = "pipelines:\n  lung: {command: [x]}\nae_titles:\n  CHEST:\n"


def mistakes(folder: Path, text: str) -> list[str]:
    """Return the mistakes of a configuration, without the file's name."""
    with pytest.raises(ConfigError) as raised:
        settings_of(folder, text)
    file = f"{folder / 'dicom-adapter.yaml'}:"
    lines = str(raised.value).splitlines()
    assert all(line.startswith(file) for line in lines)
    return [line.removeprefix(file) for line in lines]


def settings(folder: Path, **values: object) -> AETitleSettings:
    """Return the settings of an AE title that has these and one pipeline."""
    found = settings_of(folder, config(title("TEST", **values))).ae_titles["TEST"].settings
    assert isinstance(found, AETitleSettings)
    return found


def test_s71_an_ae_title_has_exactly_one_processor(tmp_path: Path) -> None:
    """A list of processors is refused: each AE title has one."""
    text = START + "    processor: [ae_title, ae_title]\n    settings: {pipeline-a: lung}\n"
    assert mistakes(tmp_path, text) == ["5: ae_titles.CHEST.processor: must be text, not a list"]


def test_s72_the_default_processor_is_the_ae_title_processor(tmp_path: Path) -> None:
    """Without `processor` an AE title has the AE Title processor, with all its defaults."""
    found = settings_of(tmp_path, config(title("TEST"))).ae_titles["TEST"]
    assert found.processor == "ae_title"
    assert found.settings == AETitleSettings.model_validate({"pipeline-none": "none"})
    assert found.settings.model_dump() == {
        "priority": "normal",
        "timeout": 5.0,
        "max_wait": None,
        "late": "whole-study",
        "group_by": "study",
        "on_mismatch": "park",
        "pipeline-none": "none",
    }


@pytest.mark.parametrize("priority", ["lower", "normal", "higher", "immediate"])
def test_s74_four_priorities_are_taken(tmp_path: Path, priority: str) -> None:
    """Each of the four words is a priority."""
    assert settings(tmp_path, priority=priority).priority == priority


@pytest.mark.parametrize(
    ("priority", "shown"),
    [("urgent", "'urgent'"), ("Normal", "'Normal'"), ("2", "2"), ("", "nothing"), ("[]", "a list")],
)
def test_s74_other_priorities_are_refused(tmp_path: Path, priority: str, shown: str) -> None:
    """A priority that is none of the four words is refused with its line."""
    text = START + f"    settings:\n      priority: {priority}\n      pipeline-a: lung\n"
    assert mistakes(tmp_path, text) == [
        (
            "6: ae_titles.CHEST.settings.priority: must be lower, normal, higher or immediate, "
            f"not {shown}"
        )
    ]


@pytest.mark.parametrize(
    ("timeout", "problem"),
    [
        ("4", "must be at least 5, not 4"),
        ("4.999", "must be at least 5, not 4.999"),
        ("4999ms", "must be at least 5, not '4999ms'"),
        ("0", "must be at least 5, not 0"),
        ("-5", "must be a duration from 0s to 36500d, not -5"),
        ("soon", "must be a duration such as 30, 30s, 5m, 1h30m, 7d or 250ms, not 'soon'"),
        ("", "must be a duration such as 30, 30s, 5m, 1h30m, 7d or 250ms, not nothing"),
    ],
)
def test_s76_a_timeout_below_five_seconds_is_refused(
    tmp_path: Path, timeout: str, problem: str
) -> None:
    """Less than five seconds is refused, not silently made five, with file, line and key."""
    text = START + f"    settings:\n      pipeline-a: lung\n      timeout: {timeout}\n"
    assert mistakes(tmp_path, text) == [f"7: ae_titles.CHEST.settings.timeout: {problem}"]


def test_s76_five_seconds_are_taken(tmp_path: Path) -> None:
    """Five seconds are the shortest timeout, and longer ones take units."""
    assert settings(tmp_path, timeout=5).timeout == 5
    assert settings(tmp_path, timeout="1m30s").timeout == 90


def test_s77_every_pipeline_setting_names_a_configured_pipeline(tmp_path: Path) -> None:
    """A `pipeline-*` that names no configured pipeline is refused, and says what was meant."""
    text = START + "    settings:\n      pipeline-a: lung\n      pipeline-b: lungs\n"
    assert mistakes(tmp_path, text) == [
        (
            "7: ae_titles.CHEST.settings.pipeline-b: there is no pipeline 'lungs', configured are "
            "lung; did you mean 'lung'?"
        )
    ]


@pytest.mark.parametrize(
    ("settings", "line"),
    [("    port: 104\n", 4), ("    settings:\n", 5), ("    settings: {timeout: 9}\n", 5)],
)
def test_s77_an_ae_title_without_a_pipeline_is_refused(
    tmp_path: Path, settings: str, line: int
) -> None:
    """An AE title with nothing to do is refused, also when it has no settings at all."""
    (said,) = mistakes(tmp_path, START + settings)
    assert said.startswith(f"{line}: ae_titles.CHEST.settings: the AE title has nothing to do")


def test_s81_without_a_timeout_it_is_five_seconds(tmp_path: Path) -> None:
    """The timeout's default is five seconds."""
    assert settings(tmp_path).timeout == 5.0


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("timeuot", "; did you mean 'timeout'?"),
        ("grupby", "; did you mean 'group_by'?"),
        ("pipelin-lung", "; did you mean 'pipeline-'?"),
        ("pipeline-", "; did you mean 'pipeline-'?"),
        ("Pipeline-x", "; did you mean 'pipeline-'?"),
        ("jobRetryDelay", ""),
    ],
)
def test_an_unknown_setting_is_refused(tmp_path: Path, key: str, near: str) -> None:
    """A key that the processor does not know is refused, with what was meant."""
    text = START + f"    settings:\n      pipeline-a: lung\n      {key}: 1\n"
    assert mistakes(tmp_path, text) == [
        (
            f"7: ae_titles.CHEST.settings.{key}: is an unknown key{near}; allowed are priority, "
            "timeout, max_wait, late, group_by, on_mismatch and pipeline-<name>"
        )
    ]


def test_a_pipeline_setting_needs_a_name_behind_the_dash(tmp_path: Path) -> None:
    """A bare `pipeline-` is no pipeline, so that an AE title with it alone has nothing to do."""
    said = mistakes(tmp_path, START + "    settings:\n      pipeline-: lung\n")
    assert [line.partition(": ")[0] for line in said] == ["5", "6"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("study", "study"),
        ("series", "series"),
        ("patient", "patient"),
        ("association", "association"),
        ("AccessionNumber", "AccessionNumber"),
        ("0008,0050", "AccessionNumber"),
        ("(0008,0050)", "AccessionNumber"),
        ("0008, 0050", "AccessionNumber"),
        ("00080050", "AccessionNumber"),
        ("0020,000d", "StudyInstanceUID"),
        ("SeriesNumber", "SeriesNumber"),
        ("0009,1001", "00091001"),
        ("(00E1,10c3)", "00E110C3"),
        ("6002,0010", "60020010"),
    ],
)
def test_group_by_takes_levels_keywords_and_tags(tmp_path: Path, written: str, meant: str) -> None:
    """A level, a keyword of the data dictionary or a tag in any usual spelling is taken."""
    assert settings(tmp_path, group_by=written).group_by == meant


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("Study", "must be one of study, series, patient, association, or a keyword or tag"),
        ("accession", "not 'accession'; did you mean"),
        ("AccesionNumber", "did you mean 'AccessionNumber'?"),
        ("0008,00500", "must be one of"),
        ("'0008'", "must be one of"),
        ("'8'", "must be one of"),
        ("''", "must be one of"),
        ("'0008,FFF1'", "must be one of"),
        ("PixelData", "'PixelData' has no text to group by"),
        ("7FE0,0010", "has no text to group by"),
        ("7FE1,1001", "has no text to group by"),
        ("ReferencedStudySequence", "has no text to group by"),
        ("EncapsulatedDocument", "has no text to group by"),
        ("TransferSyntaxUID", "has no text to group by"),
        ("0002,0010", "has no text to group by"),
        ("MessageID", "has no text to group by"),
        ("0009,0000", "has no text to group by"),
        ("00080050", "must be text"),
        ("[study]", "must be text"),
    ],
)
def test_group_by_refuses_what_has_no_text(tmp_path: Path, written: str, problem: str) -> None:
    """Sequences, bulk data, the file meta group and unknown words cannot be grouped by."""
    text = START + f"    settings:\n      group_by: {written}\n      pipeline-a: lung\n"
    (said,) = mistakes(tmp_path, text)
    assert said.startswith("6: ae_titles.CHEST.settings.group_by: ")
    assert problem in said


def test_max_wait_is_no_shorter_than_the_timeout(tmp_path: Path) -> None:
    """A cap below the timeout is refused: then no group could ever be quiet for so long."""
    text = START + "    settings: {timeout: 60, max_wait: 5, pipeline-a: lung}\n"
    assert mistakes(tmp_path, text) == [
        (
            "5: ae_titles.CHEST.settings.max_wait: must be at least the timeout, which is 60 s, or "
            "no group could wait that long"
        )
    ]
    assert settings(tmp_path, timeout=60, max_wait="1m").max_wait == 60


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    """One mistake does not hide another."""
    text = START + (
        "    settings:\n"
        "      priority: urgent\n"
        "      timeout: 3\n"
        "      group_by: PixelData\n"
        "      max_wiat: 1h\n"
        "      pipeline-a: heart\n"
        "  HEART: {}\n"
    )
    told = [line.partition(":")[0] for line in mistakes(tmp_path, text)]
    assert told == ["6", "7", "8", "9", "10", "11"]


SCENARIO_1 = """{
  "pipelines": {"lung": {"command": ["x"]}},
  "ae_titles": {
    "CHEST": {
      "settings": {
        "timeout": 60,
        "priority: "normal",
        "pipeline-lung": "lung"
      }
    }
  }
}
"""


def test_s94_the_malformed_example_is_refused_with_its_position(tmp_path: Path) -> None:
    """Scenario 1 with its missing quotation mark is refused at its line, and not guessed at."""
    (said,) = mistakes(tmp_path, SCENARIO_1)
    assert said.startswith("7: file: is not valid YAML: ")
    assert said.endswith("; a quotation mark is missing on this line")


def test_s94_the_corrected_example_is_shipped(tmp_path: Path) -> None:
    """The example without the mistake is taken, and config/ has one like it."""
    corrected = SCENARIO_1.replace('"priority: "normal"', '"priority": "normal"')
    assert settings_of(tmp_path, corrected).ae_titles["CHEST"].settings.timeout == 60  # type: ignore[attr-defined]
    assert "priority: normal" in (ROOT / "config/scenario-1.yaml").read_text("utf-8")


def test_the_table_of_settings_in_the_docs_is_right() -> None:
    """docs/configuration.md tells each setting, its values and its default as the model has it."""
    page = (ROOT / "docs/configuration.md").read_text("utf-8")
    _, _, section = page.partition("## The settings of the default job processor, `ae_title`")
    table = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.partition("\n## ")[0].splitlines()
        if line.startswith("| `")
    ]
    written = {cells[0].strip("`"): cells[1:] for cells in table}
    assert [*written] == [*AETitleSettings.model_fields, "pipeline-*"]
    for row in rows(AETitleSettings, ""):
        key = row.key.removeprefix(".")
        assert written[key][1] == row.default
        if key not in {"group_by", "timeout"}:
            assert written[key][0] == row.takes
    assert written["timeout"][0] == "duration, 5 s or more"
    assert all(f"`{level}`" in written["group_by"][0] for level in ("study", "series", "patient"))
