"""Two useful pipelines, which are also the example of how a pipeline is written.

`series_report` looks a series over, `nifti` turns it into a volume. They are ordinary commands, as
a stranger would write them: they know the environment variables that the executor sets, the job's
manifest and DICOM, and nothing else of this product. What they print becomes the job's log, so
they print no patient data and no UIDs.
"""
