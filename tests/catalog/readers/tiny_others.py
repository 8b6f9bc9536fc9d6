"""Makers of tiny copies in the official layouts; `MAKERS` names the data sets."""

import nibabel
import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from PIL import Image

RNG = np.random.default_rng(0)
SIZE = (32, 40)
COLOUR = RNG.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
DISC = np.zeros(SIZE, bool)
DISC[8:24, 8:32] = True
CUP = np.zeros(SIZE, bool)
CUP[12:20, 16:24] = True
BLOB = np.where(DISC, 255, 0).astype(np.uint8)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def save_volume(path, volume, *, spacing=(1.0, 1.0, 1.0), axes="LPS"):
    """Write a (D, H, W) volume, whose axes run to superior, posterior and left, in the orientation ``axes``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([-spacing[2], -spacing[1], spacing[0], 1.0])
    image = nibabel.Nifti1Image(np.ascontiguousarray(volume.transpose(2, 1, 0)), affine)
    image = image.as_reoriented(ornt_transform(io_orientation(affine), axcodes2ornt(tuple(axes))))
    nibabel.save(image, path)


def fundus_labels(cup, rim, background):
    return np.where(CUP, cup, np.where(DISC, rim, background)).astype(np.uint8)


def make_refuge(root):
    labels = fundus_labels(0, 128, 255)
    truth = "Annotation-Training400/Disc_Cup_Masks"
    for image, mask in (
        ("Training400/Glaucoma/g0001", f"{truth}/Glaucoma/g0001"),
        ("Training400/Glaucoma/g0002", f"{truth}/Glaucoma/g0002"),
        ("Training400/Non-Glaucoma/n0001", f"{truth}/Non-Glaucoma/n0001"),
        ("REFUGE-Validation400/REFUGE-Validation400/V0001", "REFUGE-Validation400-GT/Disc_Cup_Masks/V0001"),
        ("REFUGE-Validation400/REFUGE-Validation400/V0002", "REFUGE-Validation400-GT/Disc_Cup_Masks/V0002"),
        ("Test400/T0001", "REFUGE-Test-GT/Disc_Cup_Masks/G/T0001"),
        ("Test400/T0002", "REFUGE-Test-GT/Disc_Cup_Masks/N/T0002"),
    ):
        save(root / f"{image}.jpg", COLOUR)
        save(root / f"{mask}.bmp", labels)
    save(root / "Training400/AMD/A0001.jpg", COLOUR)
    (root / "Annotation-Training400/Fovea_location.xlsx").touch()


def make_drishti_gs(root):
    experts = np.zeros(SIZE, np.float64)  # of the disc: nobody, one, two, three, all
    experts[:, 8:], experts[:, 16:], experts[:, 24:], experts[:, 32:] = 0.25, 0.5, 0.75, 1
    for part, truth, stems in (
        ("Training", "GT", ("Images/drishtiGS_002", "Images/drishtiGS_004")),
        ("Test", "Test_GT", ("Images/glaucoma/drishtiGS_001", "Images/normal/drishtiGS_003")),
    ):
        for number, stem in enumerate(stems):
            name = stem.rpartition("/")[2]
            base = root / "Drishti-GS1_files" / part
            soft = base / truth / name / "SoftMap" / name
            save(base / f"{stem}.png", COLOUR)
            half = np.rint if number else np.floor  # a tie is stored as 128 or as 127
            save(soft.with_name(f"{name}_ODsegSoftmap.png"), half(experts * 255).astype(np.uint8))
            save(soft.with_name(f"{name}_cupsegSoftmap.png"), np.where(experts == 1, 255, 0).astype(np.uint8))


def make_origa(root):
    for number, kind in ((1, "A"), (2, "B"), (3, "A")):
        save(root / "Images" / f"{number:03}.jpg", COLOUR)
        save(root / "Masks" / f"{number:03}.png", fundus_labels(2, 1, 0))
        save(root / "Images_Square" / f"{number:03}.jpg", COLOUR)
        with (root / "OrigaList.csv").open("a", encoding="utf-8") as stream:
            stream.write("Eye,Filename,ExpCDR,Set,Glaucoma\n" if number == 1 else "")
            stream.write(f"OD,{number:03}.jpg,0.7,{kind},0\n")


def make_tn3k(root):
    for part, count in (("trainval", 3), ("test", 2)):
        for number in range(count):
            save(root / f"{part}-image" / f"{number:04}.jpg", COLOUR)
            save(root / f"{part}-mask" / f"{number:04}.jpg", np.stack([BLOB] * 3, -1))
    (root / "tn3k-trainval-fold0.json").write_text('{"train": [0, 1], "val": [2]}')


def make_isic2017(root):
    for start, (part, count) in enumerate((("Training", 3), ("Validation", 1), ("Test_v2", 2))):
        for number in range(count):
            stem = f"ISIC_00{start}{number:04}"
            save(root / f"ISIC-2017_{part}_Data" / f"{stem}.jpg", COLOUR)
            save(root / f"ISIC-2017_{part}_Data" / f"{stem}_superpixels.png", COLOUR)
            save(root / f"ISIC-2017_{part}_Part1_GroundTruth" / f"{stem}_segmentation.png", BLOB)


def make_polypgen(root):
    base = root / "PolypGen2021_MultiCenterData_v3"
    for centre, stems in {
        "C1": ("957OLCV1_100H0002", "957OLC1_100H0003", "100H0050"),
        "C2": ("EndoCV2021_001000", "EndoCV2021_001001"),
        "C3": ("C3_EndoCV2021_001", "C3_EndoCV2021_00489_"),
        "C4": ("4_endocv2021_positive_34", "4_endocv2021_positive_954", "18_endocv2021_positive_1492"),
        "C5": ("EndoCV2021_C5_50000279",),
        "C6": ("EndoCV2021_C6_0100018",),
    }.items():
        for stem in stems:
            save(base / f"data_{centre}/images_{centre}" / f"{stem}.jpg", COLOUR)
            save(base / f"data_{centre}/masks_{centre}" / f"{stem.rstrip('_')}_mask.jpg", BLOB)
    for name, frames in (("seq1", 2), ("seq10", 1)):
        for frame in range(frames):
            save(base / f"sequenceData/positive/{name}/images_{name}" / f"0_endocv2021_positive_{frame}.jpg", COLOUR)
            save(base / f"sequenceData/positive/{name}/masks_{name}" / f"0_endocv2021_positive_{frame}_mask.jpg", BLOB)
    (base / "sequenceData/positive/seq1/masks_seq1/0_endocv2021_positive_0.txt").touch()
    save(base / "sequenceData/negativeOnly/seq1_neg/1.jpg", COLOUR)


def ventricles():
    labels = np.zeros((3, *SIZE), np.uint8)
    labels[:, 8:24, 8:16], labels[:, 8:24, 16:32], labels[:, 12:20, 20:28] = 1, 2, 3
    labels[0] = 0  # the last slice of the heart shows nothing
    return labels


def make_acdc(root):
    spacing = (10.0, 1.25, 1.5)
    volume = RNG.integers(0, 900, (3, *SIZE)).astype(np.int16)
    for part, patient, frames in (
        ("training", "patient001", (1, 12)),
        ("training", "patient090", (4, 11)),
        ("testing", "patient101", (1, 14)),
    ):
        base = root / "database" / part / patient
        base.mkdir(parents=True)
        (base / "Info.cfg").write_text(f"ED: {frames[0]}\nES: {frames[1]}\nGroup: DCM\nHeight: 184.0\n")
        for frame in frames:
            save_volume(base / f"{patient}_frame{frame:02}.nii.gz", volume, spacing=spacing)
            save_volume(base / f"{patient}_frame{frame:02}_gt.nii.gz", ventricles(), spacing=spacing)
        (base / f"{patient}_4d.nii.gz").write_bytes(b"never read")


def organs():
    labels = np.zeros((4, *SIZE), np.uint8)
    labels[1:, 4:8] = np.repeat(np.arange(0, 10, dtype=np.uint8), 4)  # background, 1 to 9
    labels[1:, 20:24] = np.repeat(np.arange(4, 14, dtype=np.uint8), 4)  # 4 to 13
    return labels


def make_synapse(root):
    volume = RNG.integers(-1000, 1000, (4, *SIZE)).astype(np.int16)
    for number, axes in ((1, "LAS"), (5, "RPS"), (21, "LPS")):
        base = root / "RawData/Training"
        save_volume(base / "img" / f"img{number:04}.nii.gz", volume, spacing=(3.0, 0.75, 0.5), axes=axes)
        save_volume(base / "label" / f"label{number:04}.nii.gz", organs(), spacing=(3.0, 0.75, 0.5), axes=axes)
    (root / "RawData/Testing/img").mkdir(parents=True)


def tumour():
    labels = np.zeros((6, 8, 10), np.uint8)
    labels[1:5, 1:7, 1:9], labels[2:4, 2:6, 2:8], labels[2:4, 3:5, 4:6] = 2, 1, 4
    return labels


def make_brats2021(root):
    brain = np.zeros((6, 8, 10), np.int16)
    brain[1:-1, 1:-1, 1:-1] = RNG.integers(100, 2000, (4, 6, 8))
    for patient in ("BraTS2021_00000", "BraTS2021_00002", "BraTS2021_01666"):
        base = root / "BraTS2021_Training_Data" / patient
        for modality in ("t1", "t1ce", "t2", "flair"):
            save_volume(base / f"{patient}_{modality}.nii.gz", brain)
        save_volume(base / f"{patient}_seg.nii.gz", tumour())
    validation = root / "BraTS2021_ValidationData" / "BraTS2021_00001"
    save_volume(validation / "BraTS2021_00001_t1.nii.gz", brain)


MAKERS = {
    "acdc": make_acdc,
    "brats2021": make_brats2021,
    "drishti_gs": make_drishti_gs,
    "isic2017": make_isic2017,
    "origa": make_origa,
    "polypgen": make_polypgen,
    "refuge": make_refuge,
    "synapse": make_synapse,
    "tn3k": make_tn3k,
}
