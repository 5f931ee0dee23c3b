"""Every mistake is refused with its line, its key, and words that say what is allowed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dicom_adapter.config import Settings

Mistakes = Callable[[str], list[str]]

PIPELINE = "pipelines: {p: {command: [x]}}\n"
AET = PIPELINE + "ae_titles: {A: {settings: {a: p}, %s}}"

DICOM_KEYS = (
    "allowed are host, port, processes, max_associations, max_per_calling_ae, max_per_address, "
    "max_pdu, reject_unknown_sources, tls, users, jwt, require_user, timeouts, min_rate, "
    "max_instance, private_sop_classes"
)

ONE_MISTAKE = {
    # The listener
    "dicom: {prot: 1}": f"1: dicom.prot: is an unknown key; did you mean 'port'?; {DICOM_KEYS}",
    "dicom: {tsl: {port: 2762}}": (
        f"1: dicom.tsl: is an unknown key; did you mean 'tls'?; {DICOM_KEYS}"
    ),
    "dicom: {port: '11112'}": (
        "1: dicom.port: must be a whole number, not '11112': take off the quotes"
    ),
    "dicom: {port: true}": "1: dicom.port: must be a whole number, not true",
    "dicom: {port: 104.0}": "1: dicom.port: must be a whole number, not 104.0",
    "dicom: {port: .nan}": "1: dicom.port: must be a whole number, not .nan",
    "dicom: {port: 2026-01-01}": "1: dicom.port: must be a whole number, not '2026-01-01'",
    "dicom: {port: [1]}": "1: dicom.port: must be a whole number, not a list",
    "dicom: {port: }": "1: dicom.port: must be a whole number, not nothing",
    "dicom: {port: 65536}": "1: dicom.port: must be at most 65535, not 65536",
    "dicom: {port: -1}": "1: dicom.port: must be at least 0, not -1",
    "dicom: {max_associations: 0}": "1: dicom.max_associations: must be at least 1, not 0",
    "dicom: {max_pdu: 4095}": "1: dicom.max_pdu: must be at least 4096, not 4095",
    "dicom: {max_pdu: 1048577}": "1: dicom.max_pdu: must be at most 1048576, not 1048577",
    "dicom: {reject_unknown_sources: yes}": (
        "1: dicom.reject_unknown_sources: must be true or false, not 'yes'"
    ),
    "dicom: {reject_unknown_sources: true}": (
        "1: dicom.reject_unknown_sources: would reject everyone: there are no sources; "
        "name them, or make it false"
    ),
    "dicom: {host: scanner}": (
        "1: dicom.host: must be an IP address of this machine, 0.0.0.0 for all of them, or "
        "localhost; not 'scanner'"
    ),
    "dicom: {users: {alice: open sesame}}": (
        "1: dicom.users.alice: must be what `dicom-adapter hash-passcode` prints, not the passcode"
    ),
    "dicom: {users: {alice: 12345}}": (
        "1: dicom.users.alice: must be what `dicom-adapter hash-passcode` prints, not the passcode"
    ),
    "dicom: {require_user: true}": (
        "1: dicom.require_user: would reject everyone: there are neither users nor jwt in dicom"
    ),
    "dicom: {timeouts: {idle: 0}}": "1: dicom.timeouts.idle: must be longer than 0s",
    "dicom: {timeouts: {idel: 1}}": (
        "1: dicom.timeouts.idel: is an unknown key; did you mean 'idle'?; "
        "allowed are association, idle, progress"
    ),
    "dicom: {timeouts: 5}": ("1: dicom.timeouts: must be a mapping of keys and values, not 5"),
    "dicom: {private_sop_classes: [1.2.3, 1.02.3]}": (
        "1: dicom.private_sop_classes[1]: must be a UID: numbers without leading zeros, joined by "
        "dots, at most 64 characters, not '1.02.3'"
    ),
    # Storage, ledger, platform and the rest
    "storage: {path: 5}": "1: storage.path: must be a path, not 5",
    "storage: {path: ''}": "1: storage.path: must not be empty",
    "storage: {path: '/a?b'}": "1: storage.path: must be a path without '?' and '%', not '/a?b'",
    "storage: {watermark: 85}": (
        "1: storage.watermark: must be a percentage above 0% and up to 100%, such as 85%, not 85"
    ),
    "storage: {reserve: 5G}": (
        "1: storage.reserve: must be a size such as 1024, 512MiB, 5GiB or 5GB, not '5G'"
    ),
    "storage: {retain: -3}": "1: storage.retain: must be a duration from 0s to 36500d, not -3",
    "storage: {durability: none}": (
        "1: storage.durability: must be power-loss or process-crash, not 'none'"
    ),
    "ledger: {url: 'postgresql://u:secret@h/db'}": (
        "1: ledger.url: must be a SQLite file such as sqlite:////var/lib/dicom-adapter/ledger.db, "
        "or sqlite:///ledger.db beside this file; not 'postgresql://...@h/db'"
    ),
    "ledger: {url: 'sqlite:///:memory:'}": (
        "1: ledger.url: must name a file, which outlives the service, without '?' and '%' in it"
    ),
    "platform: {address: nowhere}": (
        "1: platform.address: must be HOST:PORT such as 127.0.0.1:50051 or [::1]:50051, not "
        "'nowhere'; or embedded for the one inside this service"
    ),
    "platform: {address: 'h:0'}": (
        "1: platform.address: must name the platform's real port, not 0"
    ),
    "platform: {address: 'h:1'}": (
        "1: platform.address: leaves nothing to serve: without ae_titles it must be embedded, "
        "which makes this service a platform; not 'h:1'"
    ),
    "platform: {executor: docker}": (
        "1: platform.executor: must be local, or one of executors, not 'docker'"
    ),
    "platform: {capacity: {cpus: 1.5}}": (
        "1: platform.capacity.cpus: must be a whole number, not 1.5"
    ),
    "platform: {capacity: {memory: 0}}": ("1: platform.capacity.memory: must be at least 1, not 0"),
    "grpc: {listen: '0.0.0.0:50051'}": (
        "1: grpc.listen: lets others in without TLS: give grpc.tls a certificate and key, "
        "listen on 127.0.0.1, or make grpc.allow_plaintext true"
    ),
    "platform: {token: /dev/null}": (
        "1: platform.token: must hold a token alone, on one line: /dev/null"
    ),
    "projects: {Trial: {}}": (
        "1: projects.Trial: a project's name has 1 to 63 of a-z, 0-9, '.', '_' and '-', and starts "
        "with a letter or digit; not 'Trial'"
    ),
    "projects: {a: {limits: {running: 0}}}": (
        "1: projects.a.limits.running: must be at least 1, not 0"
    ),
    f"{AET % 'project: trail'}\nprojects: {{trial: {{}}}}": (
        "2: ae_titles.A.project: there is no project 'trail', configured are default, trial; "
        "did you mean 'trial'?"
    ),
    "grpc: {listen: '127.0.0.1'}": (
        "1: grpc.listen: must be HOST:PORT such as 127.0.0.1:50051 or [::1]:50051, not '127.0.0.1'"
    ),
    "grpc: {listen: '127.0.0.1:11112'}": (
        "1: dicom.port: must not be 11112: grpc.listen (127.0.0.1:11112) has it"
    ),
    "log: {format: xml}": "1: log.format: must be auto, text or json, not 'xml'",
    "web: {listen: x}": (
        "1: web: is an unknown key; allowed are dicom, storage, ledger, platform, grpc, log, "
        "executors, pipelines, projects, ae_titles, sources, webhooks"
    ),
    "file: x": (
        "1: file: is an unknown key; allowed are dicom, storage, ledger, platform, grpc, log, "
        "executors, pipelines, projects, ae_titles, sources, webhooks"
    ),
    "dicom: 5": "1: dicom: must be a mapping of keys and values, not 5",
    "pipelines: [a]": "1: pipelines: must be a mapping of keys and values, not a list",
    # Pipelines
    "pipelines: {Lung: {command: [x]}}": (
        "1: pipelines.Lung: a pipeline's name has 1 to 63 of a-z, 0-9, '.', '_' and '-', and "
        "starts with a letter or digit; not 'Lung'"
    ),
    "pipelines: {a: 5}": "1: pipelines.a: must be a mapping of keys and values, not 5",
    "pipelines: {a: }": "1: pipelines.a.command: is missing, and must be given",
    "pipelines: {a: {command: []}}": "1: pipelines.a.command: is missing, and must be given",
    "pipelines: {a: {image: '--privileged'}}": (
        "1: pipelines.a.image: must be the name of an image, such as "
        "registry.example.org/lung:1.2, not '--privileged'"
    ),
    "platform: {container_options: [--root, /x]}": (
        "1: platform.container_options: are of one runtime: say in container_runtime whether it "
        "is podman or docker"
    ),
    "pipelines: {a: {command: run}}": "1: pipelines.a.command: must be a list, not 'run'",
    "pipelines: {a: {command: [x, '']}}": "1: pipelines.a.command[1]: must not be empty",
    "pipelines: {a: {command: [x, 05]}}": (
        "1: pipelines.a.command[1]: must be text, not 05: put it in quotes"
    ),
    'pipelines: {a: {command: ["x\\0"]}}': (
        "1: pipelines.a.command[0]: must not contain a NUL character"
    ),
    "pipelines: {a: {command: ['{inptu}']}}": (
        "1: pipelines.a.command[0]: has the unknown placeholder '{inptu}'; there are {input}, "
        "{output}, {job}, {progress}, and a literal brace is doubled"
    ),
    "pipelines: {a: {command: ['{input!r:>9}']}}": (
        "1: pipelines.a.command[0]: has the unknown placeholder '{input!r:>9}'; there are "
        "{input}, {output}, {job}, {progress}, and a literal brace is doubled"
    ),
    "pipelines: {a: {command: ['{']}}": (
        "1: pipelines.a.command[0]: has a brace of its own: write {{ or }} for a literal one; "
        "placeholders are {input}, {output}, {job}, {progress}"
    ),
    "pipelines: {a: {command: [x], timeout: 0s}}": (
        "1: pipelines.a.timeout: must be longer than 0s"
    ),
    "pipelines: {a: {command: [x], steps: [a, b, a]}}": (
        "1: pipelines.a.steps: must name each once, and names 'a' again"
    ),
    "pipelines: {a: {command: [x], retries: {exit_codes: [75, 0]}}}": (
        "1: pipelines.a.retries.exit_codes[1]: must be the code of a failure: 0 is success"
    ),
    "pipelines: {a: {command: [x], log_size: 1KiB}}": (
        "1: pipelines.a.log_size: must be at least 4096, not '1KiB'"
    ),
    "pipelines: {a: {command: [x], name: b}}": (
        "1: pipelines.a.name: is an unknown key; allowed are description, executor, "
        "remote_pipeline, image, command, resources, requires, limits, timeout, queue_timeout, "
        "silence_timeout, cancel, retries, log_size, steps"
    ),
    "platform: {capacity: {memory: 1GiB}}\npipelines:\n  a: {command: [x], resources: {memory: "
    "2GiB}}": (
        "3: pipelines.a.resources.memory: could never start: it needs 2GiB, and the platform has "
        "1GiB (platform.capacity.memory)"
    ),
    "pipelines: {a: {command: [x], resources: {gpus: 1}}}": (
        "1: pipelines.a.resources.gpus: could never start: it needs 1, and the platform has 0 "
        "(platform.capacity.gpus)"
    ),
    "platform: {address: 'h:1'}\nae_titles: {A: {settings: {a: p}}}\n" + PIPELINE: (
        "3: pipelines: must not be here: pipelines are configured where they run, which is h:1 "
        "(platform.address)"
    ),
    # AE titles
    PIPELINE + "ae_titles:\n  A: {settings: {a: p}}\n  A: {settings: {a: p}}": (
        "4: ae_titles.A: is given twice: it stands on line 3 already"
    ),
    PIPELINE + "ae_titles:\n  A: {settings: {a: p}}\n  'A ': {settings: {a: p}}": (
        "4: ae_titles.'A ': is given twice, spaces around it do not count: see line 3"
    ),
    PIPELINE + "ae_titles: {ABCDEFGHIJKLMNOPQ: {settings: {a: p}}}": (
        "2: ae_titles.ABCDEFGHIJKLMNOPQ: an AE title has at most 16 characters, this one has 17"
    ),
    PIPELINE + "ae_titles: {'  ': {settings: {a: p}}}": (
        "2: ae_titles.'  ': an AE title must not be empty nor only spaces"
    ),
    PIPELINE + "ae_titles: {'': {settings: {a: p}}}": (
        "2: ae_titles.'': an AE title must not be empty nor only spaces"
    ),
    PIPELINE + "ae_titles: {A\\B: {settings: {a: p}}}": (
        "2: ae_titles.A\\B: an AE title holds letters, digits, spaces and signs of ASCII without "
        "the backslash, not '\\\\'"
    ),
    PIPELINE + "ae_titles: {RÖ: {settings: {a: p}}}": (
        "2: ae_titles.RÖ: an AE title holds letters, digits, spaces and signs of ASCII without "
        "the backslash, not '\\xd6'"
    ),
    PIPELINE + 'ae_titles: {"A\\tB": {settings: {a: p}}}': (
        "2: ae_titles.'A\\tB': an AE title holds letters, digits, spaces and signs of ASCII "
        "without the backslash, not '\\t'"
    ),
    AET % "processor: nope": (
        "2: ae_titles.A.processor: there is no job processor 'nope'; there are "
        "['ae_title', 'plain', 'strange', 'union']"
    ),
    AET % "processor: 'broken.module:Class'": (
        "2: ae_titles.A.processor: no module named 'broken'"
    ),
    AET % "processor: 5": "2: ae_titles.A.processor: must be text, not 5: put it in quotes",
    AET % "title: B": (
        "2: ae_titles.A.title: is an unknown key; allowed are processor, port, "
        "require_user, ignored_sop_classes, accepted_sop_classes, duplicates, resend, project, "
        "settings"
    ),
    AET % "duplicates: newest": (
        "2: ae_titles.A.duplicates: must be keep-first, keep-last or keep-both, not 'newest'"
    ),
    AET % "resend: never": ("2: ae_titles.A.resend: must be process or ignore, not 'never'"),
    AET % "port: 50051": (
        "2: ae_titles.A.port: must not be 50051: grpc.listen (127.0.0.1:50051) has it"
    ),
    AET % "ignored_sop_classes: CTImageStorage": (
        "2: ae_titles.A.ignored_sop_classes: must be a list, not 'CTImageStorage'"
    ),
    AET % "ignored_sop_classes: [CTImageStorge]": (
        "2: ae_titles.A.ignored_sop_classes[0]: 'CTImageStorge' is no storage SOP class: give its "
        "UID, or its keyword such as CTImageStorage; did you mean 'CTImageStorage'?"
    ),
    AET % "accepted_sop_classes: [1.2.3]": (
        "2: ae_titles.A.accepted_sop_classes[0]: 1.2.3 is no storage SOP class known here: add it "
        "to dicom.private_sop_classes if it is a private one"
    ),
    AET % "accepted_sop_classes: []": (
        "2: ae_titles.A.accepted_sop_classes: would accept nothing: leave it out to accept every "
        "storage SOP class"
    ),
    # The job processor's settings
    PIPELINE + "ae_titles: {A: }": (
        "2: ae_titles.A.settings: has nothing to do: name a pipeline, as pipeline-NAME: NAME"
    ),
    PIPELINE + "ae_titles: {A: {settings: [a]}}": (
        "2: ae_titles.A.settings: must be a mapping of keys and values, not a list"
    ),
    PIPELINE + "ae_titles:\n  A:\n    settings:\n      a: p\n      b: q": (
        "6: ae_titles.A.settings.b: there is no pipeline 'q', configured are p"
    ),
    "pipelines: {lung: {command: [x]}}\nae_titles: {A: {settings: {a: lungs}}}": (
        "2: ae_titles.A.settings.a: there is no pipeline 'lungs', configured are lung; "
        "did you mean 'lung'?"
    ),
    "ae_titles: {A: {settings: {a: p}}}": (
        "1: ae_titles.A.settings.a: there is no pipeline 'p', none is configured"
    ),
    PIPELINE + "ae_titles: {A: {settings: {a: p, timeout: 3s}}}": (
        "2: ae_titles.A.settings.timeout: must be at least 5, not 3s"
    ),
    PIPELINE + "ae_titles: {A: {settings: {a: p, priority: urgent}}}": (
        "2: ae_titles.A.settings.priority: must be lower, normal, higher or immediate, not 'urgent'"
    ),
    "ae_titles: {A: {processor: strange}}": (
        "1: ae_titles.A.settings: the processor cannot check them: RuntimeError: out of order"
    ),
    # Sources
    "sources: {S: {ae_title: ' ', host: 10.1.2.3}}": (
        "1: sources.S.ae_title: an AE title must not be empty nor only spaces"
    ),
    "sources: {S: {ae_title: 0123, host: 10.1.2.3}}": (
        "1: sources.S.ae_title: must be text, not 0123: put it in quotes"
    ),
    "sources: {S: {ae_title: A, host: 10.1.2.3/24}}": (
        "1: sources.S.host: '10.1.2.3/24' is an address inside a network: write 10.1.2.0/24 for "
        "the network, or 10.1.2.3 for the one host"
    ),
    "sources: {S: {ae_title: A, host: ct1.hospital}}": (
        "1: sources.S.host: must be an IP address or network such as 10.1.2.3 or 10.1.2.0/24, not "
        "'ct1.hospital'; give a host's address instead of its name"
    ),
    "sources: {S: {ae_title: A, host: 10}}": (
        "1: sources.S.host: must be an IP address or network such as 10.1.2.3 or 10.1.2.0/24, "
        "not 10"
    ),
    "sources: {S: {ae_title: A}}": "1: sources.S.host: is missing, and must be given",
    "sources: {S: {ae_title: A, host: 10.1.2.3, ports: 104}}": (
        "1: sources.S.ports: is an unknown key; did you mean 'port'?; allowed are ae_title, host, "
        "certificate, port, retrieve, tls"
    ),
    "sources: {S: {ae_title: A, host: 10.1.2.3, port: 0}}": (
        "1: sources.S.port: must be at least 1, not 0"
    ),
    "sources: {S: {ae_title: A, host: 10.1.2.0/24, port: 104}}": (
        "1: sources.S.host: must be one address where there is a port, not the network "
        "10.1.2.0/24: name the network in a source of its own"
    ),
    "sources: {S: {ae_title: A, host: 10.1.2.3, retrieve: c-get}}": (
        "1: sources.S.retrieve: is not looked at without a port to ask at"
    ),
    "sources: {S: {ae_title: A, host: 10.1.2.3, port: 104, retrieve: C-STORE}}": (
        "1: sources.S.retrieve: must be c-move or c-get, not 'C-STORE'"
    ),
    "sources: {S: {ae_title: S, host: 10.1.2.3, tls: true}}": (
        "1: sources.S.tls: is not looked at without a port to ask at"
    ),
    "sources: {S: {ae_title: S, host: 10.1.2.3, port: 104, tls: true}}": (
        "1: sources.S.tls: needs dicom.tls with a ca: the certificate that we show, and who "
        "vouches for it"
    ),
    "sources: {W: {url: pacs.example/dicom-web}}": (
        "1: sources.W.url: must be an address such as https://pacs.example/dicom-web, and begin "
        "with https:// or http://"
    ),
    "sources: {W: {url: 'http://ann:secret@pacs.example'}}": (
        "1: sources.W.url: must be without a user: name it by user, and its password's file by "
        "password"
    ),
    "sources: {W: {url: 'http://pacs.example', host: 10.1.2.3}}": (
        "1: sources.W.host: is an unknown key; allowed are url, user, password, token, ca"
    ),
    "sources: {W: {url: 'http://pacs.example', user: ann}}": (
        "1: sources.W.password: is missing beside user"
    ),
    "dicom: {reject_unknown_sources: true}\nsources: {W: {url: 'http://pacs.example'}}": (
        "1: dicom.reject_unknown_sources: would reject everyone: there are no sources; name them, "
        "or make it false"
    ),
    "destinations: {}": (
        "1: destinations: is an unknown key; allowed are dicom, storage, ledger, platform, grpc, "
        "log, executors, pipelines, projects, ae_titles, sources, webhooks"
    ),
}


@pytest.mark.parametrize(("text", "said"), ONE_MISTAKE.items(), ids=list(ONE_MISTAKE))
def test_one_mistake(mistakes: Mistakes, text: str, said: str) -> None:
    """Each of these is refused, with exactly these words."""
    assert mistakes(text) == [said]


STRANGERS = {
    "either: x": ["either: must be a whole number, not 'x'", "either: must be a list, not 'x'"],
    "inner: {priority: normal}": [
        "inner: has nothing to do: name a pipeline, as pipeline-NAME: NAME",
    ],
    "inner: {priority: x}": [
        "inner.priority: must be lower, normal, higher or immediate, not 'x'",
    ],
    "inner: [1]": ["inner: must be a mapping of keys and values, not a list"],
    "ratio: x": ["ratio: must be a number, not 'x'"],
    "code: xyz": ["code: must be text like ^[a-c]+$, not 'xyz'"],
    "code: a": ["code: must have at least 2 characters, unlike 'a'"],
    "code: abcab": ["code: must have at most 4 characters, unlike 'abcab'"],
    "day: friday": ["day: must be monday, not 'friday'"],
    "many: [1, 2, 3]": ["many: must have at most 2 in it, and has 3"],
    "many: [x]": ["many[0]: must be a whole number, not 'x'"],
    "secret: 5": ["secret: must be text, not 5: put it in quotes"],
    "custom: 3": ["custom: is not to my liking"],
    "again: 3": ["again: in other words"],
    "even: 3": ["even: must be a multiple of 2, not 3"],
    "cod: a": [
        (
            "cod: is an unknown key; did you mean 'code'?; allowed are "
            "either, inner, ratio, code, day, many, secret, even, custom, again"
        )
    ],
}


@pytest.mark.parametrize(("text", "said"), STRANGERS.items(), ids=list(STRANGERS))
def test_a_strangers_settings(mistakes: Mistakes, text: str, said: list[str]) -> None:
    """A processor's own model is told in the same words, whatever it is made of."""
    found = mistakes(f"ae_titles: {{A: {{processor: union, settings: {{{text}}}}}}}")
    assert sorted(found) == sorted(f"1: ae_titles.A.settings.{line}" for line in said)


def test_all_mistakes_at_once(mistakes: Mistakes) -> None:
    """Mistakes in one section hide none in another, and they come in the file's order."""
    found = mistakes(
        """\
dicom:
  port: x
  reject_unknown_sources: true
platform:
  max_jobs: 0
  capacity: {memory: 1GiB}
web:
pipelines:
  a: {command: [x], resources: {memory: 2GiB}, timeout: x}
  b: {}
ae_titles:
  A: {port: x, settings: {x: c, y: b, timeout: 1}}
  A: {}
  B: {processor: nope, port: x}
sources:
"""
    )
    assert [line.split(": ")[:2] for line in found] == [
        ["2", "dicom.port"],
        ["3", "dicom.reject_unknown_sources"],
        ["5", "platform.max_jobs"],
        ["7", "web"],
        ["9", "pipelines.a.resources.memory"],
        ["9", "pipelines.a.timeout"],
        ["10", "pipelines.b.command"],
        ["12", "ae_titles.A.port"],
        ["12", "ae_titles.A.settings.timeout"],
        ["12", "ae_titles.A.settings.x"],
        ["13", "ae_titles.A"],
        ["14", "ae_titles.B.port"],
        ["14", "ae_titles.B.processor"],
    ]


def test_the_missing_quotation_mark(mistakes: Mistakes) -> None:
    """The example with a quotation mark missing is refused with its line."""
    (said,) = mistakes('ae_titles:\n  CHEST:\n    settings:\n      "priority: "normal"\n')
    assert said.startswith("4: file: is not valid YAML: ")
    assert said.endswith("; a quotation mark is missing on this line")


def test_a_script_beside_the_file_is_named_in_full(
    tmp_path: Path, mistakes: Callable[[str], list[str]]
) -> None:
    """A relative name of a file that is there passes every other check, and fails every job."""
    (tmp_path / "count.py").touch()
    (mistake,) = mistakes("pipelines: {count: {command: [python, count.py]}}")
    assert mistake == (
        "1: pipelines.count.command: 'count.py' is relative, and the command runs in an empty "
        f"folder: write {tmp_path / 'count.py'}"
    )


def test_a_long_script_in_a_command_is_no_mistake(
    configured: Callable[[str], Settings],
) -> None:
    """No file can have such a name, so it is none that lies beside the file."""
    script = "echo " + 300 * "x"
    settings = configured(f"pipelines: {{count: {{command: [sh, -c, {script}]}}}}")
    assert settings.pipelines["count"].command[-1] == script


def test_an_unknown_setting_of_a_stranger_is_told(mistakes: Callable[[str], list[str]]) -> None:
    """A model's default passes over unknown keys; a configuration's reader would never know."""
    (mistake,) = mistakes(
        "ae_titles: {A: {processor: plain, settings: {quite: 9}}}",
    )
    assert mistake == (
        "1: ae_titles.A.settings.quite: is an unknown key; did you mean 'quiet'?; allowed are quiet"
    )


def test_an_image_needs_what_can_run_it(
    mistakes: Mistakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where neither runtime is, or not the one that is wanted, the line and the cure are told."""
    text = "pipelines:\n  a: {image: lung}\n"
    cure = "this machine's PATH; install one, for instance with `apt-get install podman`"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert mistakes(text) == [
        f"2: pipelines.a.image: could never start: neither Podman nor Docker is on {cure}"
    ]
    wanted = "platform: {container_runtime: podman}\n"
    (tmp_path / "docker").symlink_to("/bin/true")
    assert mistakes(wanted + text) == [
        f"3: pipelines.a.image: could never start: podman is not on {cure}"
    ]
    small = text.replace("lung", "lung, resources: {memory: 8MiB}")
    (told,) = mistakes(small)
    assert told.startswith(
        "2: pipelines.a.resources.memory: must be at least 16MiB beside an image"
    )
