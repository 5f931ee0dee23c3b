"""Lets `python -m dicom_adapter` be the command line."""

import sys

from dicom_adapter.cli import main

sys.exit(main())
