"""A recipe's training in Keras, as its tutorial has it: `python keras_peer.py omniglot`.

The backend is the one that the environment's KERAS_BACKEND names, else TensorFlow. Needs keras and
a backend, and NumPy; nothing of siamjax.
"""

import time

STARTED = time.perf_counter()

import os  # noqa: E402

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras  # noqa: E402
from clock import BATCHES, RECIPES, arguments, measure, pairs  # noqa: E402
from keras import layers, ops  # noqa: E402


def tower(recipe, shape):
    """The shared network."""
    x = image = layers.Input(shape)
    if recipe == "mnist_mlp":
        x = layers.Flatten()(x)
        for i in range(3):
            x = layers.Dropout(0.1)(x) if i else x
            x = layers.Dense(128, activation="relu")(x)
    elif recipe == "mnist_cnn":
        for _ in range(2):
            x = layers.Conv2D(64, 2, padding="same", activation="relu")(x)
            x = layers.Dropout(0.3)(layers.MaxPooling2D(2)(x))
        x = layers.Dense(48)(layers.GlobalAveragePooling2D()(x))
    elif recipe == "omniglot":
        l2 = keras.regularizers.l2
        for i, (features, size) in enumerate(((64, 10), (128, 7), (128, 4), (256, 4))):
            x = layers.Conv2D(features, size, activation="relu", kernel_regularizer=l2(2e-4))(x)
            x = layers.MaxPooling2D()(x) if i < 3 else x
        x = layers.Dense(4096, activation="sigmoid", kernel_regularizer=l2(1e-3))(
            layers.Flatten()(x)
        )
    elif recipe == "omniglot_vgg":
        x = keras.applications.VGG16(include_top=False, weights=None, input_shape=shape)(x)
        x = layers.Flatten()(x)
    else:
        base = keras.applications.ResNet152V2(include_top=False, weights=None, input_shape=shape)
        base.trainable = False
        x = layers.Dropout(0.1)(layers.Flatten()(base(x)))
        x = layers.Dense(512, activation="relu")(x)
    return keras.Model(image, x)


def euclidean(sides):
    """The distance, its square kept above 1e-7."""
    return ops.sqrt(
        ops.maximum(
            ops.sum(ops.square(sides[0] - sides[1]), 1, keepdims=True), keras.config.epsilon()
        )
    )


def contrastive(same, d):
    """With margin 1."""
    return ops.mean(same * ops.square(d) + (1 - same) * ops.square(ops.maximum(1 - d, 0)))


def network(recipe):
    """The compiled Siamese model."""
    shape = RECIPES[recipe][1]
    shared, left, right = tower(recipe, shape), layers.Input(shape), layers.Input(shape)
    sides = [shared(left), shared(right)]
    if recipe == "mnist_mlp":
        out, loss = layers.Lambda(euclidean)(sides), contrastive
        optimizer = keras.optimizers.RMSprop()
    elif recipe == "mnist_cnn":
        out = layers.Dense(1, activation="sigmoid")(layers.Lambda(euclidean)(sides))
        loss, optimizer = "binary_crossentropy", keras.optimizers.Adam()
    elif recipe == "image_pairs":
        out = layers.BatchNormalization()(layers.Lambda(euclidean)(sides))
        out = layers.Dense(1, activation="sigmoid")(out)
        loss, optimizer = contrastive, keras.optimizers.Adam(0.01)
    else:
        out = layers.Lambda(lambda s: ops.abs(s[0] - s[1]))(sides)
        if recipe == "omniglot_vgg":
            out = layers.Dense(512)(out)
        out = layers.Dense(1, activation="sigmoid")(out)
        rate = 6e-5 if recipe == "omniglot" else 1e-4
        loss, optimizer = "binary_crossentropy", keras.optimizers.Adam(rate)
    model = keras.Model([left, right], out)
    model.compile(optimizer=optimizer, loss=loss)
    return model


def main():
    """Entry point."""
    args = arguments(["float32"])
    batch = RECIPES[args.recipe][0]
    left, right, same = pairs(args.recipe)
    model = network(args.recipe)

    def steps(count):
        # A call of `fit` goes through what is in memory once.
        for start in range(0, count, BATCHES):
            n = min(BATCHES, count - start) * batch
            model.fit([left[:n], right[:n]], same[:n], batch_size=batch, verbose=0, shuffle=False)

    name = f"Keras {keras.__version__} on {keras.backend.backend()}"
    measure(name, args.recipe, steps, STARTED, args.windows, args.seconds)


if __name__ == "__main__":
    main()
