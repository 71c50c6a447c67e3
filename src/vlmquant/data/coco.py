"""COCO's JSON family: captions_*.json, Karpathy's split JSON, and VQA v2's pair of questions and annotations."""

import json
from pathlib import Path
from typing import Any

from vlmquant.data.captions import captioned
from vlmquant.data.images import FileImage
from vlmquant.data.sets import (
    MAX_PROBLEM_SHARE,
    CaptionedImages,
    Entry,
    Problem,
    Question,
    QuestionedImages,
    screen,
)
from vlmquant.errors import DataError
from vlmquant.progress import Track, silent

COCO_ID_DIGITS = 12


def read_coco_captions(
    annotations: Path, images: Path, *, max_problem_share: float = MAX_PROBLEM_SHARE, track: Track = silent
) -> CaptionedImages:
    """Read COCO's `captions_val2017.json` form; pictures are looked for as `images / file_name`.

    Every caption is kept, in the order of the annotation ids (some pictures of COCO have six or seven). Raises
    DataError for another JSON form and beyond `max_problem_share`.
    """
    content = _load(annotations)
    names: dict[Any, str] = {}
    captions: dict[str, list[str]] = {}
    problems: list[Problem] = []
    for image in _field(annotations, content, "images"):
        names[image["id"]] = image["file_name"]
        if image["file_name"] in captions:
            problems.append(Problem(str(image["file_name"]), "duplicate id"))
        captions[image["file_name"]] = []
    entries = _field(annotations, content, "annotations")
    if entries and "caption" not in entries[0]:
        raise DataError(
            f"{annotations} holds no captions (its annotations have {', '.join(entries[0])}); use captions_*.json"
        )
    for entry in sorted(entries, key=lambda entry: int(entry["id"])):
        text = str(entry["caption"]).strip()
        if entry["image_id"] not in names:
            problems.append(Problem(str(entry["image_id"]), "unknown image", f"annotation {entry['id']}"))
        elif not text:
            problems.append(Problem(names[entry["image_id"]], "empty caption", f"annotation {entry['id']}"))
        else:
            captions[names[entry["image_id"]]].append(text)
    return captioned(annotations.stem, captions, images, problems, max_problem_share, track)


def read_karpathy(
    annotations: Path,
    images: Path,
    *,
    split: str = "test",
    max_problem_share: float = MAX_PROBLEM_SHARE,
    track: Track = silent,
) -> CaptionedImages:
    """Read Karpathy's `dataset_coco.json` / `dataset_flickr30k.json` / `dataset_flickr8k.json`, one split of it.

    The split "train" includes "restval", as is usual. Pictures are looked for below `images`, in the sub-folder that
    the file names (`filepath`, val2014 for COCO) where there is one. Raises DataError for an unknown split.
    """
    entries = _field(annotations, _load(annotations), "images")
    wanted = {"train", "restval"} if split == "train" else {split}
    captions: dict[str, list[str]] = {}
    problems: list[Problem] = []
    for entry in entries:
        if entry["split"] not in wanted:
            continue
        name = "/".join(part for part in (entry.get("filepath", ""), entry["filename"]) if part)
        if name in captions:
            problems.append(Problem(name, "duplicate id"))
        captions[name] = [text for sentence in entry["sentences"] if (text := str(sentence["raw"]).strip())]
    if not captions:
        raise DataError(
            f"{annotations} has no split {split!r}; it has {', '.join(sorted({entry['split'] for entry in entries}))}"
        )
    return captioned(f"{annotations.stem}-{split}", captions, images, problems, max_problem_share, track)


def read_vqa(
    questions: Path,
    annotations: Path,
    images: Path,
    *,
    image_name: str,
    max_problem_share: float = MAX_PROBLEM_SHARE,
    track: Track = silent,
) -> QuestionedImages:
    """Read VQA v2's pair of files, `v2_OpenEnded_..._questions.json` and `v2_..._annotations.json`.

    `image_name` is the pictures' file name with `{}` for the twelve-digit id, such as "COCO_val2014_{}.jpg". A
    question without annotation, and every question about an unusable picture, is left out and counted. Raises
    DataError where the two files do not belong together.
    """
    if image_name.count("{}") != 1:
        raise DataError(f"image name {image_name!r} must contain {{}} once, where COCO's image id goes")
    asked = _field(questions, _load(questions), "questions")
    answered = {entry["question_id"]: entry for entry in _field(annotations, _load(annotations), "annotations")}
    problems: list[Problem] = []
    by_image: dict[int, list[dict[str, Any]]] = {}
    seen: set[int] = set()
    for entry in asked:
        number = entry["question_id"]
        if number in seen:
            problems.append(Problem(f"question {number}", "duplicate id"))
        elif number not in answered:
            problems.append(Problem(f"question {number}", "no annotation"))
        elif answered[number]["image_id"] != entry["image_id"]:
            raise DataError(
                f"question {number} is about image {entry['image_id']} in {questions.name} but about "
                f"{answered[number]['image_id']} in {annotations.name}; the two files are of different sets"
            )
        else:
            by_image.setdefault(entry["image_id"], []).append(entry)
        seen.add(number)
    records = []
    for image, entries in by_image.items():
        name = image_name.replace("{}", f"{image:0{COCO_ID_DIGITS}d}")
        records.append(Entry(name, FileImage(images / name), entries))
    screened = screen(questions.stem, records, problems=problems, max_problem_share=max_problem_share, track=track)
    kept = tuple(
        _question(entry, answered[entry["question_id"]], index)
        for index, entries in enumerate(screened.payloads)
        for entry in entries
    )
    known = [[q.id, q.image_index, q.text, q.answers, q.question_type, q.answer_type] for q in kept]
    return QuestionedImages(
        name=questions.stem,
        images=screened.images,
        digest=screened.digest(known),
        problems=screened.problems,
        questions=kept,
    )


def _question(entry: dict[str, Any], annotation: dict[str, Any], image_index: int) -> Question:
    return Question(
        id=entry["question_id"],
        image_index=image_index,
        text=str(entry["question"]),
        answers=tuple(str(answer["answer"]) for answer in annotation["answers"]),
        question_type=str(annotation["question_type"]),
        answer_type=str(annotation["answer_type"]),
    )


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} must hold a JSON object, not a {type(content).__name__}")
    return content


def _field(path: Path, content: dict[str, Any], name: str) -> list[dict[str, Any]]:
    if not isinstance(content.get(name), list):
        raise DataError(f"{path} has no list {name!r}; it has {', '.join(content) or 'nothing'}")
    return list(content[name])
