"""A recipe's training in PyTorch: `python torch_peer.py omniglot --variant=channels_last`.

Batches lie ready in memory, so the loop is at least as fast as one with a DataLoader. Needs torch
and NumPy; nothing of siamjax.
"""

import time

STARTED = time.perf_counter()

import torch  # noqa: E402
from clock import BATCHES, RECIPES, arguments, measure, pairs  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

VGG16 = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))


def tower(recipe):
    """The shared network, and the size of its output."""
    if recipe == "mnist_mlp":
        parts = [nn.Flatten(), nn.Linear(784, 128), nn.ReLU()]
        for _ in range(2):
            parts += [nn.Dropout(0.1), nn.Linear(128, 128), nn.ReLU()]
        return nn.Sequential(*parts), 128
    if recipe == "mnist_cnn":
        parts = []
        for before in (1, 64):
            parts += [nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(before, 64, 2), nn.ReLU()]
            parts += [nn.MaxPool2d(2), nn.Dropout(0.3)]
        parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 48)]
        return nn.Sequential(*parts), 48
    if recipe == "omniglot":
        parts, before = [], 1
        for i, (features, size) in enumerate(((64, 10), (128, 7), (128, 4), (256, 4))):
            parts += [nn.Conv2d(before, features, size), nn.ReLU()]
            parts += [nn.MaxPool2d(2)] if i < 3 else []
            before = features
        return nn.Sequential(*parts, nn.Flatten(), nn.Linear(9216, 4096), nn.Sigmoid()), 4096
    if recipe == "omniglot_vgg":
        parts, before = [], 3
        for count, features in VGG16:
            for _ in range(count):
                parts += [nn.Conv2d(before, features, 3, padding=1), nn.ReLU(inplace=True)]
                before = features
            parts.append(nn.MaxPool2d(2))
        return nn.Sequential(*parts, nn.Flatten()), 4608
    return Frozen(), 512


class Block(nn.Module):
    """A pre-activation bottleneck of Keras' ResNet-v2, which halves maps in a stack's last one."""

    def __init__(self, before, features, stride, first):
        super().__init__()
        self.stride = stride
        self.open = nn.Sequential(nn.BatchNorm2d(before, 1.001e-5), nn.ReLU())
        self.join = nn.Conv2d(before, 4 * features, 1, stride) if first else None
        self.rest = nn.Sequential(
            nn.Conv2d(before, features, 1, bias=False),
            nn.BatchNorm2d(features, 1.001e-5),
            nn.ReLU(),
            nn.Conv2d(features, features, 3, stride, 1, bias=False),
            nn.BatchNorm2d(features, 1.001e-5),
            nn.ReLU(),
            nn.Conv2d(features, 4 * features, 1),
        )

    def forward(self, x):
        """Maps to maps."""
        y = self.open(x)
        short = self.join(y) if self.join else x[:, :, :: self.stride, :: self.stride]
        return short + self.rest(y)


class Frozen(nn.Module):
    """ResNet152V2 without its top and without gradients; then dropout, a dense layer and ReLU."""

    def __init__(self):
        super().__init__()
        parts, before = [nn.Conv2d(3, 64, 7, 2, 3), nn.ZeroPad2d(1), nn.MaxPool2d(3, 2)], 64
        for stack, blocks in enumerate((3, 8, 36, 3)):
            for i in range(blocks):
                stride = 2 if i == blocks - 1 and stack < 3 else 1
                parts.append(Block(before, 64 * 2**stack, stride, i == 0))
                before = 256 * 2**stack
        parts += [nn.BatchNorm2d(before, 1.001e-5), nn.ReLU(), nn.Flatten()]
        self.backbone = nn.Sequential(*parts).requires_grad_(False)
        self.rest = nn.Sequential(nn.Dropout(0.1), nn.Linear(8192, 512), nn.ReLU())

    def forward(self, x):
        """Images to embeddings."""
        self.backbone.eval()  # its norms keep their statistics, as Keras' frozen ones do
        with torch.no_grad():
            x = self.backbone(x)
        return self.rest(x)


class Siamese(nn.Module):
    """The tower and the recipe's head."""

    def __init__(self, recipe):
        super().__init__()
        self.recipe = recipe
        self.tower, size = tower(recipe)
        self.head = {
            "mnist_mlp": nn.Identity,
            "mnist_cnn": lambda: nn.Linear(1, 1),
            "omniglot": lambda: nn.Linear(size, 1),
            "omniglot_vgg": lambda: nn.Sequential(nn.Linear(size, 512), nn.Linear(512, 1)),
            "image_pairs": lambda: nn.Sequential(
                nn.BatchNorm1d(1, 1e-3), nn.Linear(1, 1), nn.Sigmoid()
            ),
        }[recipe]()

    def forward(self, left, right):
        """The head's output of each pair."""
        a, b = self.tower(left), self.tower(right)
        if self.recipe.startswith(("mnist", "image")):
            return self.head((a - b).square().sum(1, keepdim=True).clamp(min=1e-7).sqrt())[:, 0]
        return self.head((a - b).abs())[:, 0]


def loss_of(recipe, out, same):
    """The recipe's loss."""
    if recipe in ("mnist_mlp", "image_pairs"):
        return (same * out**2 + (1 - same) * (1 - out).clamp(min=0) ** 2).mean()
    return F.binary_cross_entropy_with_logits(out, same)


def main():
    """Entry point."""
    args = arguments(["eager", "channels_last", "bfloat16"])
    batch = RECIPES[args.recipe][0]
    left, right, same = (torch.from_numpy(a) for a in pairs(args.recipe))
    left, right = (a.permute(0, 3, 1, 2).contiguous() for a in (left, right))
    model = Siamese(args.recipe)
    if args.variant != "eager":
        model = model.to(memory_format=torch.channels_last)
        left, right = (a.to(memory_format=torch.channels_last) for a in (left, right))
    if args.recipe == "mnist_mlp":
        optimizer = torch.optim.RMSprop(model.parameters(), 1e-3)
    else:
        trained = (p for p in model.parameters() if p.requires_grad)
        optimizer = torch.optim.Adam(trained, 1e-4)
    half = args.variant == "bfloat16"

    def steps(count):
        for i in range(count):
            rows = slice((i % BATCHES) * batch, (i % BATCHES + 1) * batch)
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                out = model(left[rows], right[rows])
            loss = loss_of(args.recipe, out.float(), same[rows])
            if args.recipe == "omniglot":
                penalty = sum(
                    (1e-3 if p.dim() == 2 else 2e-4) * p.square().sum()
                    for p in model.tower.parameters()
                    if p.dim() > 1
                )
                loss = loss + penalty
            loss.backward()
            optimizer.step()
        loss.item()

    name = f"PyTorch {torch.__version__.split('+')[0]} {args.variant}"
    measure(name, args.recipe, steps, STARTED, args.windows, args.seconds)


if __name__ == "__main__":
    main()
