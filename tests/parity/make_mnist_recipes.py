"""Records what Keras computes for three recipes, for test_mnist_recipes.py to compare with.

Run with an interpreter that has keras and tensorflow; siamjax is not needed:

    python tests/parity/make_mnist_recipes.py DATA [--out FOLDER] [--only RECIPE] [--wide]

DATA holds mnist/ and omniglot/. Each `<recipe>.npz` has the images (uint8 [3, 2, b, h, w, 1]:
three batches of left and right), `same` [3, b], and under siamjax's parameter paths the initial
weights, the gradients of the first batch and the weights after three steps of the recipe's
optimiser. Dropout is off. With --wide the towers are the recipes' own (Koch's has 39 million
parameters), without it narrow, to keep the files small.
"""

import argparse
import gzip
import io
import zipfile
from pathlib import Path

import numpy as np

STEPS, PAIRS = 3, 4
WIDTHS = {  # narrow, wide
    "mnist_mlp": ((8, 8, 8), (128, 128, 128)),
    "mnist_cnn": ((8, 8, 6), (64, 64, 48)),
    "omniglot": ((4, 4, 8, 8, 16), (64, 128, 128, 256, 4096)),
}


def mnist_images(data, rng):
    """Three batches of pairs of training digits, every second pair of one class."""
    with gzip.open(data / "mnist" / "train-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28, 1)
    with gzip.open(data / "mnist" / "train-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return draw_pairs(images[:2000], labels[:2000], rng)


def omniglot_images(data, rng):
    """The same of background characters."""
    from PIL import Image

    images, labels = [], []
    with zipfile.ZipFile(data / "omniglot" / "images_background.zip") as archive:
        names = sorted(n for n in archive.namelist() if n.endswith(".png"))
        folders = sorted({n.rsplit("/", 1)[0] for n in names})[:: len(names) // 20 // 24]
        for label, folder in enumerate(folders):
            for name in [n for n in names if n.startswith(folder + "/")][:4]:
                pixels = Image.open(io.BytesIO(archive.read(name))).convert("L")
                images.append(np.asarray(pixels, np.uint8)[..., None])
                labels.append(label)
    return draw_pairs(np.stack(images), np.array(labels), rng)


def draw_pairs(images, labels, rng):
    """Images [steps, 2, pairs, h, w, 1] and same [steps, pairs]."""
    same = np.arange(STEPS * PAIRS) % 2 == 0
    pairs = []
    for alike in same:
        left = rng.integers(len(images))
        others = (labels == labels[left]) == alike
        others[left] = False
        pairs.append((left, rng.choice(np.flatnonzero(others))))
    index = np.array(pairs).reshape(STEPS, PAIRS, 2).transpose(0, 2, 1)
    return images[index], same.reshape(STEPS, PAIRS)


def euclidean(pair):
    """The references' Lambda layer."""
    from keras import ops

    total = ops.sum(ops.square(pair[0] - pair[1]), axis=1, keepdims=True)
    return ops.sqrt(ops.maximum(total, 1e-7))


def mnist_mlp(widths):
    """Keras' example mnist_siamese: (tower, model, loss, optimiser, parameter paths)."""
    import keras
    from keras import layers, ops

    tower = keras.Sequential([layers.Input((28, 28, 1)), layers.Flatten()])
    for width in widths:
        tower.add(layers.Dense(width, activation="relu"))
    left, right = layers.Input((28, 28, 1)), layers.Input((28, 28, 1))
    distance = layers.Lambda(euclidean, output_shape=(1,))([tower(left), tower(right)])

    def contrastive(same, d):
        away = ops.square(ops.maximum(1 - d, 0))
        return ops.mean(same * ops.square(d) + (1 - same) * away)

    paths = [f"tower/dense{i + 1}/{part}" for i in range(3) for part in ("kernel", "bias")]
    model = keras.Model([left, right], distance)
    return tower, model, contrastive, keras.optimizers.RMSprop(1e-3), paths


def mnist_cnn(widths):
    """Rosebrock's build_siamese_model and its head."""
    import keras
    from keras import layers

    tower = keras.Sequential([layers.Input((28, 28, 1))])
    for width in widths[:2]:
        tower.add(layers.Conv2D(width, (2, 2), padding="same", activation="relu"))
        tower.add(layers.MaxPooling2D(pool_size=(2, 2)))
    tower.add(layers.GlobalAveragePooling2D())
    tower.add(layers.Dense(widths[2]))
    left, right = layers.Input((28, 28, 1)), layers.Input((28, 28, 1))
    distance = layers.Lambda(euclidean, output_shape=(1,))([tower(left), tower(right)])
    model = keras.Model([left, right], layers.Dense(1, activation="sigmoid")(distance))
    paths = [f"tower/{n}/{p}" for n in ("conv1", "conv2", "dense") for p in ("kernel", "bias")]
    paths += ["head/dense/kernel", "head/dense/bias"]
    loss = keras.losses.BinaryCrossentropy()
    return tower, model, loss, keras.optimizers.Adam(1e-3), paths


def omniglot(widths):
    """The Koch network of the Keras ports, with its penalties (in `model.losses`).

    Their kernels start N(0, 0.01): embeddings differ so little that float32 keeps two or three
    digits of a - b, and Keras' own gradients change by 2 % (convolutions) to 20 % (dense) from
    float32 to float64. So here kernels start He normal; biases start as in the ports.
    """
    import keras
    from keras import layers, ops, regularizers

    wide = keras.initializers.HeNormal()
    half = keras.initializers.RandomNormal(0.5, 0.01)
    tower = keras.Sequential([layers.Input((105, 105, 1))])
    for i, (width, size) in enumerate(zip(widths[:4], (10, 7, 4, 4), strict=True)):
        options = {"bias_initializer": half} if i else {}
        tower.add(
            layers.Conv2D(
                width,
                (size, size),
                activation="relu",
                kernel_initializer=wide,
                kernel_regularizer=regularizers.L2(2e-4),
                **options,
            )
        )
        if i < 3:
            tower.add(layers.MaxPooling2D())
    tower.add(layers.Flatten())
    tower.add(
        layers.Dense(
            widths[4],
            activation="sigmoid",
            kernel_initializer=wide,
            kernel_regularizer=regularizers.L2(1e-3),
            bias_initializer=half,
        )
    )
    left, right = layers.Input((105, 105, 1)), layers.Input((105, 105, 1))
    distance = layers.Lambda(lambda x: ops.abs(x[0] - x[1]))([tower(left), tower(right)])
    output = layers.Dense(1, activation="sigmoid", bias_initializer=half)(distance)
    names = [*(f"tower/conv{i + 1}" for i in range(4)), "tower/dense", "head"]
    paths = [f"{name}/{part}" for name in names for part in ("kernel", "bias")]
    loss = keras.losses.BinaryCrossentropy()
    return tower, keras.Model([left, right], output), loss, keras.optimizers.Adam(6e-5), paths


def record(build, widths, images, same):
    """Three training steps of a Keras model, as arrays by name."""
    import tensorflow as tf

    tower, model, loss_of, optimizer, paths = build(widths)
    variables = model.trainable_variables
    arrays = {"images": images, "same": same}
    arrays |= {f"initial/{p}": v.numpy() for p, v in zip(paths, variables, strict=True)}
    losses = []
    for step in range(STEPS):
        left, right = (images[step].astype(np.float32) / 255.0)[:, ..., :]
        truth = same[step].astype(np.float32)[:, None]
        with tf.GradientTape() as tape:
            output = model([left, right], training=True)
            loss = loss_of(truth, output) + sum(model.losses)
        gradients = tape.gradient(loss, variables)
        losses.append(float(loss))
        if step == 0:
            arrays["embedding"] = np.concatenate([tower(left), tower(right)])
            arrays["output"] = output.numpy()[:, 0]
            named = zip(paths, gradients, strict=True)
            arrays |= {f"gradient/{p}": np.asarray(g) for p, g in named}
        optimizer.apply(gradients, variables)
    arrays["losses"] = np.array(losses, np.float64)
    arrays |= {f"after/{p}": v.numpy() for p, v in zip(paths, variables, strict=True)}
    return arrays


def record_norm_head(rng):
    """The head of the image-pairs recipe on random embeddings: training, then inference."""
    import keras
    import tensorflow as tf
    from keras import layers

    left, right = layers.Input((5,)), layers.Input((5,))
    distance = layers.Lambda(euclidean, output_shape=(1,))([left, right])
    normed = layers.BatchNormalization()(distance)
    model = keras.Model([left, right], layers.Dense(1, activation="sigmoid")(normed))
    gamma, beta, kernel, bias = model.trainable_variables
    gamma.assign([1.3])
    beta.assign([-0.2])
    bias.assign([0.1])
    a, b = rng.normal(size=(2, 8, 5)).astype(np.float32)
    with tf.GradientTape() as tape:
        sides = [tf.Variable(a), tf.Variable(b)]
        trained = model(sides, training=True)
        gradient = tape.gradient(tf.reduce_sum(tf.square(trained)), sides[0])
    mean, variance = model.layers[-2].non_trainable_variables
    return {
        "left": a,
        "right": b,
        "params": np.concatenate([v.numpy().ravel() for v in (gamma, beta, kernel, bias)]),
        "trained": trained.numpy()[:, 0],
        "gradient": gradient.numpy(),
        "statistics": np.concatenate([mean.numpy(), variance.numpy()]),
        "inferred": model([a, b], training=False).numpy()[:, 0],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--only", choices=WIDTHS)
    parser.add_argument("--wide", action="store_true")
    arguments = parser.parse_args()
    import keras

    for build, read in (
        (mnist_mlp, mnist_images),
        (mnist_cnn, mnist_images),
        (omniglot, omniglot_images),
    ):
        if arguments.only not in (None, build.__name__):
            continue
        keras.utils.set_random_seed(1)
        images, same = read(arguments.data, np.random.default_rng(0))
        widths = WIDTHS[build.__name__][arguments.wide]
        arrays = record(build, widths, images, same)
        save = np.savez if arguments.wide else np.savez_compressed
        save(arguments.out / f"{build.__name__}.npz", **arrays)
    if arguments.only:
        return
    keras.utils.set_random_seed(1)
    head = record_norm_head(np.random.default_rng(0))
    np.savez_compressed(arguments.out / "euclidean_norm_dense.npz", **head)


if __name__ == "__main__":
    main()
