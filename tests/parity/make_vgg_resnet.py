"""Records what PyTorch's VGG and Keras' ResNet-v2 compute, for tests that have neither.

Run where torch, safetensors, keras (with a backend) and h5py are installed:

    python tests/parity/make_vgg_resnet.py

It writes `vgg.npz` and `resnet_v2.npz` beside itself: thin networks with random weights, as the
very files that those libraries write, images, and what the networks make of them. The networks of
full size are compared live by `pytest -m parity`, with the functions that are here.
"""

import tempfile
from pathlib import Path

import numpy as np

CHANNELS = (64, 128, 256, 512, 512)
VGG_BLOCKS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3)}
HERE = Path(__file__).parent


def vgg_features(depth, divide=1, batch_norm=False, colours=3):
    """`torchvision.models.vgg<depth>().features`, written out."""
    from torch import nn

    layers, before = [], colours
    for convolutions, channels in zip(VGG_BLOCKS[depth], CHANNELS, strict=True):
        for _ in range(convolutions):
            layers.append(nn.Conv2d(before, channels // divide, 3, padding=1))
            layers += [nn.BatchNorm2d(channels // divide)] if batch_norm else []
            layers.append(nn.ReLU(inplace=True))
            before = channels // divide
        layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers)


def siamese_vgg(depth, divide, map_size, hidden, seed=0):
    """bubbliiiing/Siamese-pytorch: |f(a) - f(b)|, flattened (c, h, w), and two dense layers."""
    import torch
    from torch import nn

    class Siamese(nn.Module):
        def __init__(self):
            super().__init__()
            self.vgg = nn.Module()
            self.vgg.features = vgg_features(depth, divide)
            flat = map_size[0] * map_size[1] * CHANNELS[-1] // divide
            self.fully_connect1 = nn.Linear(flat, hidden)
            self.fully_connect2 = nn.Linear(hidden, 1)

        def embed(self, x):
            return torch.flatten(self.vgg.features(x), 1)

        def forward(self, left, right):
            difference = torch.abs(self.embed(left) - self.embed(right))
            return self.fully_connect2(self.fully_connect1(difference))[:, 0]

    torch.manual_seed(seed)
    model = Siamese()
    randomise_vgg(model)
    return model


def randomise_vgg(model):
    """Weights at which every layer matters: no bias or statistic is at its default."""
    import torch
    from torch import nn

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                module.bias.normal_(0, 0.1)
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.3, 2)


def siamese_vgg_outputs(model, left, right, same):
    """Embeddings (h, w, c), logits, mean loss and gradients by name, of images [n, h, w, c].

    In the precision of the images.
    """
    import torch

    model = model.double() if left.dtype == np.float64 else model.float()
    model.zero_grad()

    def tensor(images):
        return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))

    maps = model.vgg.features(tensor(left)).detach().numpy()
    logits = model(tensor(left), tensor(right))
    target = torch.from_numpy(same.astype(left.dtype))
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
    loss.backward()
    return {
        "embedding": maps.transpose(0, 2, 3, 1).reshape(len(maps), -1),
        "logits": logits.detach().numpy(),
        "loss": np.float32(loss.item()),
        **{f"gradient {name}": p.grad.numpy().copy() for name, p in model.named_parameters()},
    }


def after_one_step(model):
    """Weights by name after a step of the recipe's optimiser, on the gradients it holds now."""
    import torch

    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.optim.Adam(model.parameters(), lr=1e-4).step()
    after = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    model.load_state_dict(before)
    return after


def resnet_v2(depth, divide, size):
    """`keras.applications.resnet_v2` without its top, with fewer channels, at random weights."""
    import keras
    from keras.src.applications.resnet import stack_residual_blocks_v2

    if divide == 1:
        model = getattr(keras.applications, f"ResNet{depth}V2")(
            include_top=False, weights=None, input_shape=(*size, 3)
        )
    else:
        width = 64 // divide
        image = keras.layers.Input((*size, 3))
        x = keras.layers.ZeroPadding2D(3, name="conv1_pad")(image)
        x = keras.layers.Conv2D(width, 7, strides=2, name="conv1_conv")(x)
        x = keras.layers.ZeroPadding2D(1, name="pool1_pad")(x)
        x = keras.layers.MaxPooling2D(3, strides=2, name="pool1_pool")(x)
        for i, blocks in enumerate({26: (2, 2, 2, 2), 50: (3, 4, 6, 3)}[depth]):
            stride = 2 if i < 3 else 1
            x = stack_residual_blocks_v2(x, width * 2**i, blocks, stride, name=f"conv{i + 2}")
        x = keras.layers.BatchNormalization(epsilon=1.001e-5, name="post_bn")(x)
        x = keras.layers.Activation("relu", name="post_relu")(x)
        model = keras.Model(image, x)
    randomise_resnet(model)
    return model


def randomise_resnet(model, seed=0):
    """As `randomise_vgg`: statistics far from 0 and 1, so that epsilon and order matter."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        name, shape = weight.path.split("/")[-1], weight.shape
        if name in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.3, 1.5, shape))
        elif name in ("beta", "moving_mean", "bias"):
            weight.assign(rng.normal(0, 0.2, shape))


def save_h5(model, path):
    """The format of the published files, `<layer>/<layer>/kernel:0` without the `:0`."""
    import h5py
    from keras.src.legacy.saving import legacy_h5_format

    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)


def images(n, h, w, seed=0):
    """Coloured blocks of 8x8 pixels, which compress well."""
    blocks = np.random.default_rng(seed).integers(0, 256, (n, h // 8, w // 8, 3), np.uint8)
    return blocks.repeat(8, 1).repeat(8, 2)


def as_bytes(save, suffix):
    """The bytes of the file that `save(path)` writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"weights{suffix}"
        save(path)
        return np.frombuffer(path.read_bytes(), np.uint8)


def record_vgg():
    """`vgg.npz`: a Siamese VGG11 with its gradients, and a VGG13 with batch norms."""
    import safetensors.torch
    import torch

    left, right = images(3, 64, 96, 1), images(3, 64, 96, 2)
    right[0] = left[0]
    same = np.array([True, False, True])
    model = siamese_vgg(11, 32, (2, 3), 8)
    outputs = siamese_vgg_outputs(
        model, left.astype(np.float32) / 255, right.astype(np.float32) / 255, same
    )
    normed = vgg_features(13, 64, batch_norm=True)
    randomise_vgg(normed)
    state = {f"features.{name}": value for name, value in normed.state_dict().items()}
    x = torch.from_numpy(left.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    maps = normed.eval()(x).detach().numpy()

    def legacy(path):
        torch.save(state, path, _use_new_zipfile_serialization=False)

    np.savez_compressed(
        HERE / "vgg.npz",
        left=left,
        right=right,
        same=same,
        **outputs,
        siamese_pth=as_bytes(lambda path: torch.save(model.state_dict(), path), ".pth"),
        normed_legacy_pth=as_bytes(legacy, ".pth"),
        normed_safetensors=as_bytes(
            lambda path: safetensors.torch.save_file(state, path), ".safetensors"
        ),
        normed_embedding=maps.transpose(0, 2, 3, 1).reshape(len(maps), -1),
    )


def record_resnet():
    """`resnet_v2.npz`: a ResNet-26-v2 in both of Keras' formats."""
    model = resnet_v2(26, 32, (72, 96))
    x = images(2, 72, 96)
    maps = np.asarray(model(x.astype(np.float32) / 255))
    np.savez_compressed(
        HERE / "resnet_v2.npz",
        images=x,
        features=maps.reshape(len(maps), -1),
        h5=as_bytes(lambda path: save_h5(model, path), ".h5"),
        weights_h5=as_bytes(model.save_weights, ".weights.h5"),
    )


if __name__ == "__main__":
    record_vgg()
    record_resnet()
