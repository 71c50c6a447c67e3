"""Readers on small made-up data sets with everything wrong that users' data sets have wrong."""

import io
import json
import pickle
import struct
import sys
import tarfile
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlmquant.data.captions import read_caption_table
from vlmquant.data.cifar import read_cifar
from vlmquant.data.coco import read_coco_captions, read_karpathy, read_vqa
from vlmquant.data.folders import read_flat_folder, read_image_folder, read_numbered_folders
from vlmquant.data.hub import read_hub
from vlmquant.data.reader import read
from vlmquant.data.sets import CaptionedImages, ImageSet, LabelledImages
from vlmquant.data.webdataset import read_webdataset
from vlmquant.errors import DataError


def jpeg(colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(buffer, "JPEG")
    return buffer.getvalue()


def put(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def shard(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def test_image_folder(tmp_path: Path) -> None:
    for name in ("traffic_light/b.jpg", "traffic_light/a.jpg", "bus/c.JPG", "bus/notes.txt", ".hidden/x.jpg"):
        put(tmp_path / name, jpeg())
    found = read_image_folder(tmp_path)
    assert found.class_names[-2:] == ("bus", "traffic light")
    assert found.ids[-3:] == ("bus/c.JPG", "traffic_light/a.jpg", "traffic_light/b.jpg")
    assert found.images[-1].size == (40, 30)
    assert len(found.images[0:2]) == 2
    assert isinstance(read(tmp_path), LabelledImages)


def test_numbered_folders_are_labels_not_text(tmp_path: Path) -> None:
    for number in (0, 2, 10):
        put(tmp_path / str(number) / "x.jpg", jpeg())
    names = [f"class {i}" for i in range(11)]
    assert read_numbered_folders(tmp_path, names).labels.tolist() == [0, 2, 10]
    with pytest.raises(DataError, match=r"are numbers; add .*classnames\.txt"):
        read(tmp_path)
    put(tmp_path / "classnames.txt", "\n".join(names))
    found = read(tmp_path)
    assert isinstance(found, LabelledImages)
    assert found.labels.tolist() == [0, 2, 10]
    with pytest.raises(DataError, match="class folder '2' but only 2 class names"):
        read_numbered_folders(tmp_path, names[:2])


def test_flat_folder_names_what_is_broken(tmp_path: Path) -> None:
    put(tmp_path / "good.jpg", jpeg())
    put(tmp_path / "cut.jpg", jpeg()[:-200])
    put(tmp_path / "empty.png", b"")
    put(tmp_path / "text.webp", "not an image")
    with pytest.raises(DataError, match=r"3 of 4 entries .*\(3 x broken image: cut\.jpg \(.*\), empty\.png \(empty f"):
        read_flat_folder(tmp_path)
    found = read_flat_folder(tmp_path, max_problem_share=0.75)
    assert found.ids == ("good.jpg",)
    assert [problem.id for problem in found.problems] == ["cut.jpg", "empty.png", "text.webp"]
    assert found.problems[1].detail == "empty file"


def test_a_file_that_breaks_later_is_named(tmp_path: Path) -> None:
    path = put(tmp_path / "good.jpg", jpeg())
    found = read_flat_folder(tmp_path)
    path.write_bytes(b"gone")
    with pytest.raises(DataError, match=r"image 'good\.jpg' cannot be read"):
        _ = found.images[0]


def test_the_digest_follows_pictures_and_labels(tmp_path: Path) -> None:
    put(tmp_path / "a" / "cat" / "1.jpg", jpeg())
    put(tmp_path / "b" / "cat" / "1.jpg", jpeg())
    put(tmp_path / "c" / "dog" / "1.jpg", jpeg())
    put(tmp_path / "d" / "cat" / "1.jpg", jpeg("blue"))
    digests = [read_image_folder(tmp_path / name).digest for name in "abcd"]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_webdataset(tmp_path: Path) -> None:
    put(tmp_path / "classnames.txt", "cat\ndog\n")
    put(tmp_path / "test" / "nshards.txt", "2\n")
    shard(tmp_path / "test" / "0.tar", {"s0.jpg": jpeg(), "s0.cls": b"1", "s1.cls": b"0", "s1.webp": jpeg("blue")})
    shard(
        tmp_path / "test" / "1.tar",
        {"s2.jpg": jpeg(), "s2.cls": b"7", "s3.cls": b"0", "s0.jpg": jpeg(), "s0.cls": b"0"},
    )
    found = read_webdataset(tmp_path, max_problem_share=0.6)
    assert found.ids == ("s0", "s1")
    assert found.labels.tolist() == [1, 0]
    assert found.images[1].getpixel((5, 5))[2] > 200
    assert {(problem.id, problem.kind) for problem in found.problems} == {
        ("s2", "unknown label"),
        ("s3", "missing image"),
        ("s0", "duplicate id"),
    }
    assert isinstance(read(tmp_path, max_problem_share=0.6), LabelledImages)
    put(tmp_path / "test" / "nshards.txt", "3\n")
    with pytest.raises(DataError, match=r"2 tar shards but nshards\.txt says 3"):
        read_webdataset(tmp_path)
    put(tmp_path / "test" / "nshards.txt", "2\n")
    put(tmp_path / "test" / "1.tar", b"not a tar file at all")
    with pytest.raises(DataError, match=r"1\.tar is not a whole uncompressed tar"):
        read_webdataset(tmp_path)


def test_webdataset_of_captions(tmp_path: Path) -> None:
    shard(
        tmp_path / "test" / "0.tar", {"s0.jpg": jpeg(), "s0.txt": b"a cat\na pet\n", "s1.jpg": jpeg(), "s1.txt": b" \n"}
    )
    found = read(tmp_path, max_problem_share=0.5)
    assert isinstance(found, CaptionedImages)
    assert found.captions == (("a cat", "a pet"),)
    assert found.problems[0].kind == "no caption"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("captions.csv", 'image,caption\na.jpg,"one, two"\nb.jpg,three\na.jpg,four\n'),
        ("captions.tsv", "caption\tfilepath\none, two\ta.jpg\nthree\tb.jpg\nfour\ta.jpg\n"),
        ("results.csv", "image_name| comment_number| comment\na.jpg| 0| one, two\nb.jpg| 0| three\na.jpg| 1| four\n"),
        ("results_20130124.token", "a.jpg#0\tone, two\nb.jpg#0\tthree\na.jpg#1\tfour\n"),
    ],
)
def test_caption_tables(tmp_path: Path, name: str, text: str) -> None:
    put(tmp_path / name, text)
    put(tmp_path / "images" / "a.jpg", jpeg())
    put(tmp_path / "images" / "b.jpg", jpeg())
    found = read(tmp_path)
    assert isinstance(found, CaptionedImages)
    assert dict(zip(found.ids, found.captions, strict=True)) == {"a.jpg": ("one, two", "four"), "b.jpg": ("three",)}
    put(tmp_path / "test.txt", "b.jpg\n")
    assert read(tmp_path).ids == ("b.jpg",)
    put(tmp_path / "test.txt", "b.jpg\nz.jpg\nb.jpg\n")
    with pytest.raises(DataError, match=r"1 x duplicate id: b\.jpg; 1 x no caption: z\.jpg"):
        read(tmp_path)


def test_wrong_caption_tables(tmp_path: Path) -> None:
    put(tmp_path / "images" / "a.jpg", jpeg())
    swapped = put(tmp_path / "swapped.csv", "image,caption\na red wall,a.jpg\na wall,a.jpg\n")
    with pytest.raises(DataError, match="look swapped"):
        read_caption_table(swapped, tmp_path / "images")
    headless = put(tmp_path / "headless.csv", "a.jpg,a red wall\n")
    with pytest.raises(DataError, match="expected a header line"):
        read_caption_table(headless, tmp_path / "images")
    short = put(tmp_path / "short.csv", "image,caption\na.jpg,wall\na.jpg\na.jpg,\nlost.jpg,nowhere\n")
    found = read_caption_table(short, tmp_path / "images", max_problem_share=1.0)
    assert found.captions == (("wall",),)
    assert [problem.kind for problem in found.problems] == ["broken row", "empty caption", "missing image"]


def coco(tmp_path: Path) -> Path:
    put(tmp_path / "val2017" / "1.jpg", jpeg())
    content = {
        "images": [{"id": 1, "file_name": "1.jpg"}, {"id": 2, "file_name": "2.jpg"}],
        "annotations": [
            {"id": 9, "image_id": 1, "caption": "second "},
            {"id": 8, "image_id": 1, "caption": "first"},
            {"id": 7, "image_id": 2, "caption": "lost"},
            {"id": 6, "image_id": 3, "caption": "unknown"},
        ],
    }
    return put(tmp_path / "annotations" / "captions_val2017.json", json.dumps(content))


def test_coco_captions(tmp_path: Path) -> None:
    path = coco(tmp_path)
    found = read_coco_captions(path, tmp_path / "val2017", max_problem_share=0.8)
    assert found.captions == (("first", "second"),)
    assert sorted(problem.kind for problem in found.problems) == ["missing image", "unknown image"]
    with pytest.raises(DataError, match=r"1 x missing image: 2\.jpg; 1 x unknown image: 3"):
        read(tmp_path, split="val")
    put(path, json.dumps({"images": [], "annotations": [{"id": 1, "bbox": []}]}))
    with pytest.raises(DataError, match=r"holds no captions .* use captions_"):
        read_coco_captions(path, tmp_path)
    put(path, "[]")
    with pytest.raises(DataError, match="must hold a JSON object"):
        read_coco_captions(path, tmp_path)


def test_karpathy(tmp_path: Path) -> None:
    def entry(name: str, split: str) -> dict[str, object]:
        put(tmp_path / "val2014" / name, jpeg())
        return {"filepath": "val2014", "filename": name, "split": split, "sentences": [{"raw": "one "}, {"raw": "two"}]}

    images = [entry("1.jpg", "test"), entry("2.jpg", "restval"), entry("3.jpg", "train")]
    path = put(tmp_path / "dataset_coco.json", json.dumps({"images": images}))
    assert read(tmp_path).ids == ("val2014/1.jpg",)
    assert read_karpathy(path, tmp_path, split="train").ids == ("val2014/2.jpg", "val2014/3.jpg")
    with pytest.raises(DataError, match="no split 'val'; it has restval, test, train"):
        read_karpathy(path, tmp_path, split="val")


def test_vqa_pair(tmp_path: Path) -> None:
    put(tmp_path / "images" / "COCO_val2014_000000000005.jpg", jpeg())
    asked = [{"question_id": n, "image_id": i, "question": "q?"} for n, i in ((1, 5), (2, 5), (3, 6), (4, 5), (1, 5))]
    answered = [
        {
            "question_id": n,
            "image_id": i,
            "question_type": "what",
            "answer_type": "other",
            "answers": [{"answer": "cat"}] * 10,
        }
        for n, i in ((1, 5), (2, 5), (3, 6))
    ]
    questions = put(tmp_path / "q.json", json.dumps({"questions": asked}))
    annotations = put(tmp_path / "a.json", json.dumps({"annotations": answered}))
    name = "COCO_val2014_{}.jpg"
    found = read_vqa(questions, annotations, tmp_path / "images", image_name=name, max_problem_share=1.0)
    assert [(q.id, q.image_index, q.answers) for q in found.questions] == [(n, 0, ("cat",) * 10) for n in (1, 2)]
    assert sorted(problem.kind for problem in found.problems) == ["duplicate id", "missing image", "no annotation"]
    answered[0]["image_id"] = 77
    put(annotations, json.dumps({"annotations": answered}))
    with pytest.raises(DataError, match=r"about image 5 in q\.json but about 77 in a\.json"):
        read_vqa(questions, annotations, tmp_path / "images", image_name=name)
    with pytest.raises(DataError, match=r"must contain \{\} once"):
        read_vqa(questions, annotations, tmp_path / "images", image_name="x.jpg")


def test_binary_cifar(tmp_path: Path) -> None:
    pixels = np.zeros((2, 3, 32, 32), dtype=np.uint8)
    pixels[1, 2] = 255
    rows = np.concatenate([np.array([[0], [1]], dtype=np.uint8), pixels.reshape(2, -1)], axis=1)
    put(tmp_path / "test_batch.bin", rows.tobytes())
    put(tmp_path / "batches.meta.txt", "airplane\nautomobile\n\n")
    found = read_cifar(tmp_path)
    assert found.labels.tolist() == [0, 1]
    assert found.images[1].getpixel((3, 3)) == (0, 0, 255)
    put(tmp_path / "test_batch.bin", rows.tobytes()[:-1])
    with pytest.raises(DataError, match=r"no multiple of 3073"):
        read(tmp_path)


def python_cifar(folder: Path, data: bytes | None = None) -> Path:
    """Write CIFAR-100's Python version of two pictures, the second blue, into `folder`."""
    pixels = np.zeros((2, 3, 32, 32), dtype=np.uint8)
    pixels[1, 2] = 255
    batch = {b"data": pixels.reshape(2, -1), b"fine_labels": [1, 0], b"coarse_labels": [0, 0]}
    put(folder / "test", pickle.dumps(batch, protocol=2) if data is None else data)
    put(folder / "meta", pickle.dumps({b"fine_label_names": [b"apple", b"aquarium_fish"]}, protocol=2))
    return folder


def pickled_by_python_2(pixels: np.ndarray) -> bytes:
    """Return a batch as the authors' Python 2 wrote it: texts and bytes are the same there."""
    rows = struct.pack("<H", len(pixels))
    return (
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01M" + rows + b"M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<i", pixels.size) + pixels.tobytes() + b"tb"
        b"U\x0bfine_labels](K\x01K\x00eu."
    )


def test_a_pickle_of_python_2(tmp_path: Path) -> None:
    pixels = np.zeros((2, 3, 32, 32), dtype=np.uint8)
    pixels[1, 2] = 255
    found = read(python_cifar(tmp_path, pickled_by_python_2(pixels)))
    assert isinstance(found, LabelledImages)
    assert found.labels.tolist() == [1, 0]
    assert found.images[1].getpixel((3, 3)) == (0, 0, 255)


def test_cifar_in_its_python_version_and_in_archives(tmp_path: Path) -> None:
    folder = python_cifar(tmp_path / "above" / "cifar-100-python")
    archive = tmp_path / "archived" / "cifar-100-python.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as writing:
        writing.add(folder, "cifar-100-python")
    found = [read(place) for place in (folder, folder.parent, archive, archive.parent)]
    for one in found:
        assert isinstance(one, LabelledImages)
        assert one.class_names == ("apple", "aquarium fish")
        assert one.labels.tolist() == [1, 0]
        assert one.images[1].getpixel((3, 3)) == (0, 0, 255)
    assert len({one.digest for one in found}) == 1
    archive.write_bytes(archive.read_bytes()[:100])
    with pytest.raises(DataError, match=r"is not a whole \.tar\.gz file"):
        read(archive)
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path / "cifar-100-python.tar.gz")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (pickle.dumps(Path("a")), "it names pathlib"),
        (pickle.dumps([1]), "holds a list"),
        (pickle.dumps({b"data": np.zeros((2, 5), np.uint8), b"fine_labels": [0, 1]}), r"pixels uint8 \(2, 5\)"),
        (pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"fine_labels": [2]}), "labels from 2 to 2 but 2 class"),
        (b"\x80", "is not a pickle of CIFAR"),
        (pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"fine_labels": [10**30]}), "whole numbers"),
        (pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"fine_labels": [[0]]}), "whole numbers"),
        (pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"fine_labels": [0.5]}), "whole numbers"),
    ],
)
def test_pickles_that_are_not_cifar_are_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read(python_cifar(tmp_path, data))


def test_batches_of_any_protocol_are_read(tmp_path: Path) -> None:
    batch = {b"data": np.zeros((1, 3072), np.uint8), b"fine_labels": [1]}
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        found = read(python_cifar(tmp_path / f"{protocol}", pickle.dumps(batch, protocol=protocol)))
        assert isinstance(found, LabelledImages)
        assert found.labels.tolist() == [1]


def test_cifar_that_was_damaged_on_the_way_or_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = python_cifar(tmp_path / "cifar-100-python")
    archive = tmp_path / "cifar-100-python.tar.gz"
    with tarfile.open(archive, "w:gz") as writing:
        writing.add(folder, "cifar-100-python")
    content = archive.read_bytes()
    archive.write_bytes(content[:-8] + bytes([content[-8] ^ 1]) + content[-7:])  # of the checksum
    with pytest.raises(DataError, match=r"is not a whole \.tar\.gz file: CRC"):
        read(archive)
    archive.write_bytes(content)
    monkeypatch.setattr("vlmquant.data.cifar.MOST_FILE_BYTES", 1000)
    for place in (archive, folder):
        with pytest.raises(DataError, match="bytes, and no file of CIFAR's test split has"):
            read(place)


def test_class_names_of_cifar_must_differ(tmp_path: Path) -> None:
    folder = python_cifar(tmp_path)
    put(folder / "meta", pickle.dumps({b"fine_label_names": [b"apple", b"apple"]}, protocol=2))
    with pytest.raises(DataError, match="empty or given twice"):
        read(folder)


def test_a_split_that_is_named_must_be_there(tmp_path: Path) -> None:
    put(tmp_path / "flat" / "a.jpg", jpeg())
    put(tmp_path / "classes" / "cat" / "a.jpg", jpeg())
    put(tmp_path / "table" / "captions.csv", "image,caption\na.jpg,one\n")
    put(tmp_path / "table" / "images" / "a.jpg", jpeg())
    for folder in ("flat", "classes", "table"):
        assert len(read(tmp_path / folder, usual_split="dev")) == 1
        with pytest.raises(DataError, match=f"{folder} has no split 'val': .*leave the split out"):
            read(tmp_path / folder, split="val")


def test_what_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a data set that can be read; expected webdataset shards"):
        read(tmp_path)
    with pytest.raises(DataError, match="nowhere does not exist; give the folder"):
        read(tmp_path / "nowhere")
    put(tmp_path / "a.jpg", jpeg())
    assert type(read(tmp_path)) is ImageSet
    put(tmp_path / "cat" / "a.jpg", jpeg())
    with pytest.raises(DataError, match="images beside class folders"):
        read(tmp_path)


def test_hub_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="pip install datasets"):
        read_hub("cifar10")


def test_hub_finds_the_columns_by_their_types(monkeypatch: pytest.MonkeyPatch) -> None:
    class ClassLabel:
        names = ("cat", "dog")

    class HubImage:
        def __init__(self, decode: bool = True) -> None:
            self.decode = decode

    class Table(list):  # type: ignore[type-arg]
        def __init__(self, rows: list[dict[str, object]], **features: object) -> None:
            super().__init__(rows)
            self.features = features

        def cast_column(self, name: str, kind: HubImage) -> "Table":
            assert (name, kind.decode) == ("picture", False)
            return self

    rows = [({"bytes": jpeg()}, 1), ({"bytes": None}, 0), ({"bytes": jpeg()}, -1)]
    table = Table(
        [{"picture": picture, "answer": label} for picture, label in rows],
        picture=HubImage(),
        answer=ClassLabel(),
        note="text",
    )
    library = types.ModuleType("datasets")
    vars(library).update(Image=HubImage, ClassLabel=ClassLabel, load_dataset=lambda name, split: table)
    monkeypatch.setitem(sys.modules, "datasets", library)
    found = read_hub("animals", max_problem_share=1.0)
    assert (found.ids, found.labels.tolist(), found.class_names) == (("0",), [1], ("cat", "dog"))
    assert [(problem.id, problem.kind) for problem in found.problems] == [
        ("1", "missing image"),
        ("2", "unknown label"),
    ]
    del table.features["answer"]
    with pytest.raises(DataError, match="0 columns of type ClassLabel"):
        read_hub("animals")


def test_real_sets(shared_data: Path) -> None:
    cifar = read(shared_data / "cifar10-folder")
    assert isinstance(cifar, LabelledImages)
    assert len(cifar) == 1000
    assert cifar.labels.tolist() == np.repeat(np.arange(10), 100).tolist()
    flickr = read(shared_data / "flickr8k", split="dev")
    assert isinstance(flickr, CaptionedImages)
    assert len(flickr) == 100
    assert {len(captions) for captions in flickr.captions} == {5}
    coco = shared_data / "coco-mini"
    assert len(read(coco, split="val")) == 79
    with pytest.raises(DataError, match=r"79 of 79 entries cannot be used \(79 x missing image"):
        read_coco_captions(coco / "annotations" / "captions_val2017.json", coco / "train2017")
