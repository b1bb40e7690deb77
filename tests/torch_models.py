"""PyTorch modules whose attributes, and so state_dict keys, are those of torchvision's classifiers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional


class Pyramid(nn.Module):
    """`features`, `avgpool`, flatten, `classifier`: the shape of AlexNet and VGG."""

    def __init__(self, features: nn.Module, size: int, classifier: nn.Module) -> None:
        super().__init__()
        self.features, self.classifier = features, classifier
        self.avgpool = nn.AdaptiveAvgPool2d((size, size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


def alexnet(classes: int = 1000, hidden: int = 4096) -> nn.Module:
    layers: list[nn.Module] = []
    channels = 3
    for filters, window, stride, padding, pool in ((64, 11, 4, 2, True), (192, 5, 1, 2, True),
                                                   (384, 3, 1, 1, False), (256, 3, 1, 1, False),
                                                   (256, 3, 1, 1, True)):
        layers += [nn.Conv2d(channels, filters, window, stride, padding), nn.ReLU(inplace=True)]
        layers += [nn.MaxPool2d(3, 2)] if pool else []
        channels = filters
    head = nn.Sequential(nn.Dropout(), nn.Linear(9216, hidden), nn.ReLU(inplace=True), nn.Dropout(),
                         nn.Linear(hidden, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, classes))
    return Pyramid(nn.Sequential(*layers), 6, head)


VGG_COUNTS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def vgg(depth: int, norm: bool, classes: int = 1000, widths: Sequence[int] = (64, 128, 256, 512, 512),
        hidden: int = 4096) -> nn.Module:
    layers: list[nn.Module] = []
    channels = 3
    for width, count in zip(widths, VGG_COUNTS[depth], strict=True):
        for _ in range(count):
            layers.append(nn.Conv2d(channels, width, 3, padding=1))
            layers += [nn.BatchNorm2d(width)] if norm else []
            layers.append(nn.ReLU(inplace=True))
            channels = width
        layers.append(nn.MaxPool2d(2, 2))
    head = nn.Sequential(nn.Linear(channels * 49, hidden), nn.ReLU(True), nn.Dropout(),
                         nn.Linear(hidden, hidden), nn.ReLU(True), nn.Dropout(), nn.Linear(hidden, classes))
    return Pyramid(nn.Sequential(*layers), 7, head)


class Block(nn.Module):
    """A residual block; its one ReLU module is used two or three times, in place."""

    def __init__(self, channels: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        outputs = 4 * width if bottleneck else width
        if bottleneck:
            stages = [(channels, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
        else:
            stages = [(channels, width, 3, stride), (width, width, 3, 1)]
        self.count = len(stages)
        for number, (inputs, filters, window, step) in enumerate(stages, 1):
            convolution = nn.Conv2d(inputs, filters, window, step, window // 2, bias=False)
            self.add_module(f"conv{number}", convolution)
            self.add_module(f"bn{number}", nn.BatchNorm2d(filters))
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or channels != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(channels, outputs, 1, stride, bias=False),
                                            nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        for number in range(1, self.count + 1):
            x = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(x))
            if number < self.count:
                x = self.relu(x)
        x += identity
        return self.relu(x)


RESNET_BLOCKS = {18: ((2, 2, 2, 2), False), 34: ((3, 4, 6, 3), False), 50: ((3, 4, 6, 3), True)}


class ResNet(nn.Module):
    def __init__(self, depth: int, classes: int = 1000, widths: Sequence[int] = (64, 128, 256, 512)) -> None:
        super().__init__()
        counts, bottleneck = RESNET_BLOCKS[depth]
        self.conv1 = nn.Conv2d(3, widths[0], 7, 2, 3, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = widths[0]
        for stage, (width, count) in enumerate(zip(widths, counts, strict=True), 1):
            blocks = []
            for number in range(count):
                blocks.append(Block(channels, width, 2 if stage > 1 and number == 0 else 1, bottleneck))
                channels = 4 * width if bottleneck else width
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class Fire(nn.Module):
    def __init__(self, channels: int, squeeze: int) -> None:
        super().__init__()
        self.squeeze, self.squeeze_activation = nn.Conv2d(channels, squeeze, 1), nn.ReLU(inplace=True)
        self.expand1x1 = nn.Conv2d(squeeze, 4 * squeeze, 1)
        self.expand1x1_activation = nn.ReLU(inplace=True)
        self.expand3x3 = nn.Conv2d(squeeze, 4 * squeeze, 3, padding=1)
        self.expand3x3_activation = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.squeeze_activation(self.squeeze(x))
        return torch.cat([self.expand1x1_activation(self.expand1x1(x)),
                          self.expand3x3_activation(self.expand3x3(x))], 1)


class SqueezeNet(nn.Module):
    def __init__(self, version: str, classes: int = 1000) -> None:
        super().__init__()
        plan = {"1_0": (96, 7, "P16 16 32 P32 48 48 64 P64"), "1_1": (64, 3, "P16 16 P32 32 P48 48 64 64")}
        filters, window, fires = plan[version]
        layers: list[nn.Module] = [nn.Conv2d(3, filters, window, stride=2), nn.ReLU(inplace=True)]
        channels = filters
        for fire in fires.split():
            layers += [nn.MaxPool2d(3, 2, ceil_mode=True)] if fire[0] == "P" else []
            squeeze = int(fire.lstrip("P"))
            layers.append(Fire(channels, squeeze))
            channels = 8 * squeeze
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(512, classes, 1), nn.ReLU(inplace=True),
                                        nn.AdaptiveAvgPool2d((1, 1)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.flatten(self.classifier(self.features(x)), 1)


class DenseLayer(nn.Module):
    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.relu1 = nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(4 * growth), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        x = self.conv1(self.relu1(self.norm1(torch.cat(features, 1))))
        return self.conv2(self.relu2(self.norm2(x)))


class DenseBlock(nn.ModuleDict):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = [x]
        for layer in self.values():
            features.append(layer(features))
        return torch.cat(features, 1)


class DenseNet(nn.Module):
    def __init__(self, blocks: Sequence[int] = (6, 12, 24, 16), growth: int = 32, first: int = 64,
                 classes: int = 1000) -> None:
        super().__init__()
        features = OrderedDict([("conv0", nn.Conv2d(3, first, 7, 2, 3, bias=False)),
                                ("norm0", nn.BatchNorm2d(first)), ("relu0", nn.ReLU(inplace=True)),
                                ("pool0", nn.MaxPool2d(3, 2, 1))])
        channels = first
        for number, count in enumerate(blocks, 1):
            features[f"denseblock{number}"] = DenseBlock({
                f"denselayer{place + 1}": DenseLayer(channels + place * growth, growth)
                for place in range(count)})
            channels += count * growth
            if number < len(blocks):
                features[f"transition{number}"] = nn.Sequential(OrderedDict([
                    ("norm", nn.BatchNorm2d(channels)), ("relu", nn.ReLU(inplace=True)),
                    ("conv", nn.Conv2d(channels, channels // 2, 1, bias=False)),
                    ("pool", nn.AvgPool2d(2, 2))]))
                channels //= 2
        features["norm5"] = nn.BatchNorm2d(channels)
        self.features, self.classifier = nn.Sequential(features), nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.features(x), inplace=True)
        return self.classifier(torch.flatten(functional.adaptive_avg_pool2d(x, (1, 1)), 1))


def build(name: str) -> nn.Module:
    """The module called "torchvision/<name>" at its full size."""
    name = name.removeprefix("torchvision/")
    if name == "alexnet":
        return alexnet()
    if name.startswith("vgg"):
        return vgg(int(name[3:5]), name.endswith("_bn"))
    if name.startswith("resnet"):
        return ResNet(int(name[6:]))
    if name.startswith("squeezenet"):
        return SqueezeNet(name[10:])
    return DenseNet()


def randomize(module: nn.Module, seed: int = 0) -> nn.Module:
    """Seeded weights of He's scale and statistics that are not trivial; in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for item in module.modules():
            if isinstance(item, (nn.Conv2d, nn.Linear)):
                fan = item.weight[0].numel()
                item.weight.copy_(torch.randn(item.weight.shape, generator=generator) * (2 / fan) ** 0.5)
                if item.bias is not None:
                    item.bias.copy_(torch.randn(item.bias.shape, generator=generator) * 0.1)
            elif isinstance(item, (nn.BatchNorm2d, nn.BatchNorm1d)):
                for array, low in ((item.weight, 0.5), (item.bias, -0.2), (item.running_mean, -0.2),
                                   (item.running_var, 0.5)):
                    if array is not None:
                        width = 1 if low > 0 else 0.4
                        array.copy_(torch.rand(array.shape, generator=generator) * width + low)
    return module.eval()
