"""Tiny copies of the data sets of the MADGNet paper, with the names and the quirks of the official archives."""

import numpy as np
from PIL import Image

RNG = np.random.default_rng(1)
HEIGHT, WIDTH = 16, 20
GREY = RNG.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
LEFT = np.zeros((HEIGHT, WIDTH), np.uint8)
LEFT[:, :8] = 255
SOFT = np.where(LEFT > 0, 250, 3).astype(np.uint8)  # as masks that were JPEG files once
SOFT[:, 8] = 90


def save(path, array, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path)


def make_isic2018(root, parts=("Training",)):
    for number, part in enumerate(parts):
        images, masks = f"ISIC2018_Task1-2_{part}_Input", f"ISIC2018_Task1_{part}_GroundTruth"
        for index in range(4):
            save(root / images / f"ISIC_00{number}{index}000.jpg", COLOUR)
            save(root / masks / f"ISIC_00{number}{index}000_segmentation.png", LEFT)
        for folder in (images, masks):
            (root / folder / "ATTRIBUTION.txt").touch()
            (root / folder / "LICENSE.txt").touch()


def make_ph2(root):
    for index, name in enumerate(("IMD002", "IMD003", "IMD421", "IMD437")):
        case = root / "PH2Dataset" / "PH2 Dataset images" / name
        save(case / f"{name}_Dermoscopic_Image" / f"{name}.bmp", COLOUR)
        save(case / f"{name}_lesion" / f"{name}_lesion.bmp", LEFT, "1" if index % 2 else "P")
        save(case / f"{name}_roi" / f"{name}_R1_Label3.bmp", LEFT, "1")
    (root / "PH2Dataset" / "PH2_dataset.txt").touch()


def make_covid19_1(root):
    names = {"train": ["001_0", "001_3", "7_6", "7_tiny", "10_3", "29_0"], "test": ["001_6", "11_0", "30_3", "0_tiny"]}
    for part, stems in names.items():
        for stem in stems:
            save(root / part / "images" / f"{stem}.jpg", GREY)
            save(root / part / "masks" / f"{stem}.png", SOFT)


def make_covid19_2(root):
    for number in (0, 7, 2533):
        save(root / "images" / f"{number}.png", GREY, "RGB")
        save(root / "masks" / f"{number}.png", SOFT, "RGB")


def make_stu(root):
    for number in (1, 2, 10):
        save(root / "Hospital" / f"Test_Image_{number}.png", GREY, "RGB")
        save(root / "Hospital" / f"mask_{number}.png", SOFT, "RGB")


def outline(*points):
    vertices = "".join(f'<Vertex X="{x:.6f}" Y="{y:.6f}" Z="0"/>' for x, y in points)
    return f'<Region Id="1" Type="0"><Attributes/><Vertices>{vertices}</Vertices></Region>'


def annotation(*outlines):
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<Annotations MicronsPerPixel="0.252000"><Annotation Id="1"><Attributes/>'
        f"<Regions><RegionAttributeHeaders/>{''.join(outlines)}</Regions><Plots/></Annotation></Annotations>"
    )


def make_monuseg2018(root):
    upper = outline((-1, -1), (7.5, -1), (7.5, 9), (-1, 9))
    lower = outline((-1, 6), (7.5, 6), (7.5, 99), (-1, 99))
    text = annotation(upper, lower, outline((15, 3), (18, 9)))  # two points are no area
    training, test = root / "MoNuSeg 2018 Training Data", root / "MoNuSegTestData"
    for stem in ("TCGA-18-5592-01Z-00-DX1", "TCGA-G9-6336-01Z-00-DX1", "TCGA-G9-6336-01Z-00-DX2"):
        save(training / "Tissue Images" / f"{stem}.tif", COLOUR)
        (training / "Annotations").mkdir(exist_ok=True)
        (training / "Annotations" / f"{stem}.xml").write_text(text)
    for stem in ("TCGA-AC-A2FO-01A-01-TS1", "TCGA-2Z-A9J9-01A-01-TS1"):
        save(test / f"{stem}.tif", COLOUR)
        (test / f"{stem}.xml").write_text(text)


def make_monuseg2018_mixture(root):
    for stem in ("TCGA-18-5592-01Z-00-DX1", "TCGA-AC-A2FO-01A-01-TS1"):
        save(root / "kmms_training" / "images" / f"{stem}.tif", COLOUR)
        save(root / "kmms_training" / "masks" / f"{stem} .png", LEFT)
    for stem in ("01_1", "01_7", "11_3"):
        save(root / "kmms_test" / "images" / f"{stem}.png", COLOUR)
        save(root / "kmms_test" / "masks" / f"{stem}.png", SOFT, "RGBA")


def make_polyp_pranet(root):
    stems = {
        "TrainDataset": ["1", "25", "26", "612", "cju0qkwl35piu0993l0dewei2", "ck2395w2mb4vu07480otsu6tw"],
        "TestDataset/CVC-ClinicDB": ["14", "27"],
        "TestDataset/Kvasir": ["cju5x00l6m5j608503k78ptee"],
        "TestDataset/CVC-300": ["149", "150"],
        "TestDataset/CVC-ColonDB": ["25", "380"],
        "TestDataset/ETIS-LaribPolypDB": ["25", "196"],
    }
    for place, names in stems.items():
        folders = ("image", "mask") if place == "TrainDataset" else ("images", "masks")
        for name in names:
            save(root / place / folders[0] / f"{name}.png", COLOUR)
            save(root / place / folders[1] / f"{name}.png", SOFT)


MAKERS = {
    "covid19_1": make_covid19_1,
    "covid19_2": make_covid19_2,
    "isic2018": make_isic2018,
    "monuseg2018": make_monuseg2018,
    "monuseg2018_mixture": make_monuseg2018_mixture,
    "ph2": make_ph2,
    "polyp_pranet": make_polyp_pranet,
    "stu": make_stu,
}
