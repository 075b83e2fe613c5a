"""Twenty runs in the layout of Lake's all_runs.zip."""

import zipfile

import numpy as np
from PIL import Image


def write_runs(root, supports, queries, answers):
    """`runNN/` under `root`.

    Args:
        root: a folder.
        supports: `uint8 [20, 20, h, w]`.
        queries: the same.
        answers: `[20, 20]`, the place of each query's class among the supports.
    """
    for number, (shown, asked, right) in enumerate(zip(supports, queries, answers, strict=True), 1):
        run = root / f"run{number:02}"
        for folder, name, images in (("training", "class", shown), ("test", "item", asked)):
            (run / folder).mkdir(parents=True)
            for i, image in enumerate(images, 1):
                Image.fromarray(image).convert("1").save(run / folder / f"{name}{i:02}.png")
        lines = [
            f"{run.name}/test/item{i:02}.png {run.name}/training/class{c + 1:02}.png"
            for i, c in enumerate(right, 1)
        ]
        (run / "class_labels.txt").write_text("\n".join(lines) + "\n")
    return root


def random_runs(root, size=12, seed=0):
    """Runs of random ink; returns `answers [20, 20]`."""
    rng = np.random.default_rng(seed)
    shown = np.where(rng.random((20, 20, size, size)) < 0.3, 0, 255).astype(np.uint8)
    answers = np.stack([rng.permutation(20) for _ in range(20)])
    flips = rng.random(shown.shape) < 0.36
    asked = np.stack([s[a] for s, a in zip(shown, answers, strict=True)])
    write_runs(root, shown, np.where(flips, 255 - asked, asked).astype(np.uint8), answers)
    return answers


def zipped(folder, path, *, inside="", macos=False):
    """The folder as a zip, below a folder `inside`, with the files macOS adds."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            name = file.relative_to(folder).as_posix()
            archive.write(file, f"{inside}{name}")
            if macos:
                top, _, last = f"{inside}{name}".rpartition("/")
                archive.writestr(f"__MACOSX/{top}/._{last}", b"\0\5\26\7")
    return path
