"""Makes the montage a Secondary Capture image of the same study (PS3.3 A.8.1)."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.charset import convert_encodings, default_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from dicom_adapter.pipelines.series import Series

# The Patient and General Study modules (PS3.3 C.7.1.1, C.7.2.1, C.7.2.2), and what their text and
# times are written in. Those marked are of type 2: there, if only empty.
COPIED = (
    "SpecificCharacterSet",
    "TimezoneOffsetFromUTC",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "TypeOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "OtherPatientIDsSequence",
    "PatientBirthDate",
    "PatientBirthTime",
    "PatientSex",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientSpeciesDescription",
    "PatientSpeciesCodeSequence",
    "PatientBreedDescription",
    "PatientBreedCodeSequence",
    "ResponsiblePerson",
    "ResponsiblePersonRole",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "StudyDescription",
    "AccessionNumber",
    "IssuerOfAccessionNumberSequence",
    "ReferringPhysicianName",
    "BodyPartExamined",
)
TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
LOSSY = ("LossyImageCompressionRatio", "LossyImageCompressionMethod")
FIRST_SERIES_NUMBER = 9000


def write_capture(
    path: Path, picture: npt.NDArray[np.uint8], series: Series, job: str, text: str
) -> bool:
    """Write the picture (rows x columns, x 3 if RGB) as an image of the series' study.

    Returns False, with nothing written, when the series names no study.

    Its UIDs are made from the job's id and the UIDs of the series' instances: another attempt of
    the same job makes the same image, another job a new one.
    """
    sources = [each for each in series.instances if each.pixels]
    if not sources[0].study_instance_uid:
        return False
    dataset = dcmread(sources[0].path, stop_before_pixels=True)
    uids = [job, *(each.sop_instance_uid for each in sources)]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["montage", *uids])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset("", {}, preamble=bytes(128), file_meta=meta)
    _copy(dataset, image)
    image.SOPClassUID = SecondaryCaptureImageStorage
    image.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    image.SeriesInstanceUID = generate_uid(entropy_srcs=["montage series", *uids])
    _describe(image, series, text)
    _add_heritage(dataset, image)
    _add_pixels(image, picture)
    # Told that they stand there as they were read, pydicom writes the copied bytes as they are.
    declared = image.get("SpecificCharacterSet")
    character_set = convert_encodings(declared) if declared else default_encoding
    image.set_original_encoding(
        is_implicit_vr=False, is_little_endian=True, character_encoding=character_set
    )
    image.save_as(path, enforce_file_format=True)
    return True


def _describe(image: Dataset, series: Series, text: str) -> None:
    """Say what the image is: General Series, SC Equipment and General Image modules."""
    image.SeriesNumber = FIRST_SERIES_NUMBER + series.number
    image.SeriesDescription = f"Montage of series {series.number}"
    image.InstanceNumber = 1
    # "OT" as nothing was acquired; the images' own modality says little about a sheet of tiles.
    image.Modality = "OT"
    image.ConversionType = "WSD"
    image.Manufacturer = "DICOM Adapter"
    image.ManufacturerModelName = "series-report"
    image.ImageType = ["DERIVED", "SECONDARY"]
    image.DerivationDescription = text
    image.PatientOrientation = ""


def _copy(source: Dataset, target: Dataset) -> None:
    """Copy patient and study; a value that cannot be read is left out, or empty if of type 2.

    Text is copied byte by byte: decoding it, by a character set that may be declared wrongly, could
    change a name or an id.
    """
    for keyword in COPIED:
        tag, vr = Tag(keyword), dictionary_VR(keyword)
        try:
            element = source.get_item(tag)
            if isinstance(element, RawDataElement) and element.value is not None and vr != "SQ":
                target[tag] = element._replace(VR=vr, value=_even(element.value, vr))
            elif element is not None:
                target[tag] = source[tag]
        except Exception:  # noqa: BLE001, S112 - a broken value makes pydicom raise what it likes
            continue
    for keyword in TYPE_2:
        if keyword not in target:
            setattr(target, keyword, "")


def _even(value: bytes, vr: str) -> bytes:
    """The value padded to an even length (PS3.5 6.2)."""
    return value + (b"\0" if vr == "UI" else b" ") * (len(value) % 2)


def _add_heritage(source: Dataset, target: Dataset) -> None:
    """Keep what the images say of text burned into them and of lossy compression."""
    burned = str(source.get("BurnedInAnnotation", ""))
    if burned in {"YES", "NO"}:
        target.BurnedInAnnotation = burned
    if str(source.get("LossyImageCompression", "")) == "01":
        target.LossyImageCompression = "01"
        for keyword in LOSSY:
            if keyword in source:
                target[keyword] = source[keyword]


def _add_pixels(image: Dataset, picture: npt.NDArray[np.uint8]) -> None:
    """Add the Image Pixel module (PS3.3 C.7.6.3)."""
    is_colour = picture.ndim > 2  # noqa: PLR2004 - rows, columns and samples
    image.SamplesPerPixel = 3 if is_colour else 1
    image.PhotometricInterpretation = "RGB" if is_colour else "MONOCHROME2"
    if is_colour:
        image.PlanarConfiguration = 0
    image.Rows, image.Columns = picture.shape[:2]
    image.BitsAllocated, image.BitsStored, image.HighBit = 8, 8, 7
    image.PixelRepresentation = 0
    data = picture.tobytes()
    image.add_new("PixelData", "OB", data + bytes(len(data) % 2))
