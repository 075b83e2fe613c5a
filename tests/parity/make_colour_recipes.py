"""Records what two recipes of colour images compute, for test_colour_recipes.py to compare with.

    python tests/parity/make_colour_recipes.py DATA omniglot_vgg  # needs torch, pillow
    python tests/parity/make_colour_recipes.py DATA image_pairs [--full]  # keras, tensorflow, h5py

DATA holds omniglot/. Each `<recipe>.npz` has real characters on coloured paper (uint8
[3, 2, b, h, w, 3]: three batches of left and right), `same` [3, b], the initial weights (in part
as the file that the library itself writes), and under siamjax's or the library's own names the
gradients of the first batch and the weights after three steps of the recipe's optimiser. Dropout
is off. The towers are thin, to keep the files small; --full is one step of ResNet152V2.
"""

import argparse
from pathlib import Path

import numpy as np
from make_mnist_recipes import euclidean, omniglot_images
from make_vgg_resnet import as_bytes, resnet_v2, save_h5, siamese_vgg, siamese_vgg_outputs


def coloured(grey, size, rng):
    """Characters [..., 105, 105, 1] of another size, each in an ink and on a paper of its own."""
    from PIL import Image

    small = [Image.fromarray(image).resize(size[::-1]) for image in grey.reshape(-1, 105, 105)]
    paper, ink = (
        rng.integers(low, high, (len(small), 1, 1, 3)) for low, high in ((160, 256), (0, 96))
    )
    pixels = np.stack(small)[..., None] / 255 * (paper - ink) + ink
    return np.rint(pixels).astype(np.uint8).reshape(*grey.shape[:-3], *size, 3)


def omniglot_vgg(images, same):
    """A Siamese VGG11 of PyTorch: three steps of Adam."""
    import torch

    model = siamese_vgg(11, 32, (2, 3), 8)
    arrays = {"pth": as_bytes(lambda path: torch.save(model.state_dict(), path), ".pth")}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    losses = []
    for step, (left, right) in enumerate(images.astype(np.float32) / 255):
        outputs = siamese_vgg_outputs(model, left, right, same[step])  # leaves gradients behind
        losses.append(outputs.pop("loss"))
        if step == 0:
            arrays |= {name.replace(" ", "/"): value for name, value in outputs.items()}
        optimizer.step()
    after = {f"after/{n}": p.detach().numpy() for n, p in model.named_parameters()}
    return arrays | after | {"losses": np.array(losses, np.float64)}


def settle(backbone, images):
    """Gives its batch norms the images' own means and variances, as training would.

    With random ones the features of all images are nearly the same, and their distances rounding;
    with small variances a random network of this depth multiplies rounding by hundreds.
    """
    from keras.layers import BatchNormalization

    norms = [layer for layer in backbone.layers if isinstance(layer, BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.0  # all of the new statistics, nothing of the old ones
    backbone(images, training=True)
    for norm in norms:
        norm.moving_variance.assign(np.maximum(norm.moving_variance.numpy(), 0.3))


def image_pairs(images, same, full):
    """A frozen ResNet-v2 and what trains on it, in Keras: three steps of Adam."""
    import keras
    import tensorflow as tf
    from keras import layers, ops

    size = images.shape[3:5]
    backbone = resnet_v2(152, 1, size) if full else resnet_v2(26, 32, size)
    settle(backbone, images.reshape(-1, *size, 3).astype(np.float32) / 255)
    arrays = {"h5": as_bytes(lambda path: save_h5(backbone, path), ".h5")}
    backbone.trainable = False
    image = layers.Input((*size, 3))
    maps = layers.Flatten()(backbone(image))
    tower = keras.Model(image, layers.Dense(512 if full else 16, activation="relu")(maps))
    sides = [layers.Input((*size, 3)) for _ in range(2)]
    distance = layers.Lambda(euclidean, output_shape=(1,))([tower(side) for side in sides])
    norm = layers.BatchNormalization()
    model = keras.Model(sides, layers.Dense(1, activation="sigmoid")(norm(distance)))
    weights = ("tower/dense/kernel", "tower/dense/bias", "head/norm/scale", "head/norm/bias",
               "head/dense/kernel", "head/dense/bias")  # fmt: skip
    named = dict(zip(weights, model.trainable_variables, strict=True))

    def contrastive(truth, output):
        away = ops.square(ops.maximum(1 - output, 0))
        return ops.mean(truth * ops.square(output) + (1 - truth) * away)

    def state(group):
        statistics = {"norm/mean": norm.moving_mean, "norm/var": norm.moving_variance}
        trained = {f"{group}/{p}": v.numpy() for p, v in named.items()}
        return trained | {f"{group} statistics/head/{p}": v.numpy() for p, v in statistics.items()}

    arrays |= state("initial")
    features = keras.Model(image, maps)(images.reshape(-1, *size, 3).astype(np.float32) / 255)
    arrays["features"] = features.numpy().reshape(*images.shape[:3], -1)
    optimizer = keras.optimizers.Adam(0.01)
    losses = []
    for step, (left, right) in enumerate(images.astype(np.float32) / 255):
        with tf.GradientTape() as tape:
            output = model([left, right], training=True)
            loss = contrastive(same[step].astype(np.float32)[:, None], output)
        gradients = tape.gradient(loss, model.trainable_variables)
        losses.append(float(loss))
        if step == 0:
            arrays["embedding"] = np.concatenate([tower(left), tower(right)])
            arrays["output"] = output.numpy()[:, 0]
            named_gradients = zip(named, gradients, strict=True)
            arrays |= {f"gradient/{p}": np.asarray(g) for p, g in named_gradients}
        optimizer.apply(gradients, model.trainable_variables)
    left, right = images[0].astype(np.float32) / 255
    arrays["inferred"] = model([left, right], training=False).numpy()[:, 0]
    return arrays | state("after") | {"losses": np.array(losses, np.float64)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("recipe", choices=("omniglot_vgg", "image_pairs"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--full", action="store_true")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    grey, same = omniglot_images(arguments.data, rng)
    # Two pairs alike of three: with as many of each, the head's first gradients almost cancel.
    grey, same = grey[:, :, :3], same[:, :3]
    size = (64, 96) if arguments.recipe == "omniglot_vgg" else (64, 64)
    images = coloured(grey, size, rng)
    images[0, 1, 0] = images[0, 0, 0]  # a pair without a difference
    if arguments.recipe == "omniglot_vgg":
        arrays = omniglot_vgg(images, same)
    else:
        import keras

        keras.utils.set_random_seed(2)  # a start without a ReLU near a tie
        steps = 1 if arguments.full else len(same)
        images, same = images[:steps], same[:steps]
        arrays = image_pairs(images, same, arguments.full)
    save = np.savez if arguments.full else np.savez_compressed
    save(arguments.out / f"{arguments.recipe}.npz", images=images, same=same, **arrays)


if __name__ == "__main__":
    main()
