"""The cache processor: keeps what it receives, for people and programs to compose jobs of."""

from datetime import datetime
from typing import Annotated, ClassVar

from pydantic import Field

from dicom_adapter import InstanceGroup, JobProcessorBase, Seconds, Size, StoredInstance
from processors.ae_title import AETitleSettings, key_of, make_jobs

# What is kept comes into the index a moment after it was received, so a quota is looked at again.
_AGAIN_SECONDS = 60.0


class CacheSettings(AETitleSettings):
    """The settings of the cache processor; with `pipeline-*`, groups make jobs all the same."""

    needs_pipeline: ClassVar[bool] = False

    keep: Annotated[Seconds, Field(gt=0)] | None = None
    quota: Annotated[Size, Field(gt=0)] | None = None


class CacheProcessor(JobProcessorBase):
    """Keeps instances until a person lets them go, or for `keep`, or until there are too many.

    A study goes as a whole: when nothing has come of it for `keep`; and those first that nothing
    came of for longest, when all of them together are larger than `quota`, but never the last one.
    What a group still needs stays. By itself it makes no job; each `pipeline-*` of the settings
    makes one of each group, as the AE Title processor does.
    """

    name = "cache"
    Settings = CacheSettings
    keeps = True

    def handle_instance(self, instance: StoredInstance) -> None:
        """Keep the instance; with pipelines, put it into the group of its key as well.

        Raises:
            QuarantineInstance: there are pipelines, and the attribute to group by is absent.
        """
        if self.settings.pipelines:
            key = key_of(instance, self.settings.group_by)
            self.group(instance, key, self.settings.timeout, self.settings.max_wait)

    def handle_group(self, group: InstanceGroup) -> None:
        """Make one job per pipeline of a group that is due; its instances stay."""
        make_jobs(self, group)

    def tend(self, now: datetime) -> float | None:
        """Let go of studies that are too old, or too many; return when to look again."""
        keep, quota = self.settings.keep, self.settings.quota
        if keep is None and quota is None:
            return None
        studies, next_ = self.kept_studies(), None
        size = sum(study.size for study in studies)
        for study in studies:
            age = (now - study.last_received_at).total_seconds()
            # Of the last one there may be more to come, however large it is by itself.
            is_too_much = quota is not None and size > quota and study is not studies[-1]
            if (keep is not None and age >= keep) or is_too_much:
                self.remove_study(study.study_instance_uid)
                size -= study.size
            elif keep is not None:
                next_ = keep - age
                break
        if quota is None:
            return next_
        return _AGAIN_SECONDS if next_ is None else min(next_, _AGAIN_SECONDS)
