"""Tests of pictures: what is drawn is what a radiologist expects, and nothing that is not there."""
