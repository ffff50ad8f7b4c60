"""What `describe` says of an input, and that it needs no training library to say it."""

import subprocess
import sys

import pytest

from edgeft.core.errors import UsageError
from edgeft.models.config import InputOverride, ModelConfig
from edgeft.models.sources import describe
from edgeft.runtime.preprocess import InputContract


def test_lite0_is_described_in_the_units_of_its_weights() -> None:
    # assets.md: (pixel - 127) / 128, 224 px, bicubic to 256, centre crop
    assert describe(ModelConfig(base="timm/tf_efficientnet_lite0")) == InputContract(
        224, 224, "shorter_side", 256, "bicubic", (127.0,) * 3, (128.0,) * 3
    )


def test_torchvision_resnet_is_described_by_its_own_transforms() -> None:
    # torchvision's documentation of ResNet18_Weights: resize 256 bilinear, crop 224, mean and std of ImageNet
    found = describe(ModelConfig(base="torchvision/resnet18"))
    assert (found.height, found.width, found.resize_to, found.filter) == (224, 224, 256, "bilinear")
    assert found.mean == pytest.approx((0.485 * 255, 0.456 * 255, 0.406 * 255), abs=1e-6)
    assert found.std == pytest.approx((0.229 * 255, 0.224 * 255, 0.225 * 255), abs=1e-6)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (InputOverride(resize="squash"), (224, 224, "squash", None)),
        (InputOverride(height=112, width=112), (112, 112, "shorter_side", 128)),
        (InputOverride(height=112, width=224, resize="squash"), (112, 224, "squash", None)),
        (InputOverride(resize_to=300), (224, 224, "shorter_side", 300)),
    ],
)
def test_overrides_change_only_what_they_name(
    override: InputOverride, expected: tuple[int, int, str, int | None]
) -> None:
    found = describe(ModelConfig(base="timm/tf_efficientnet_lite0", input=override))
    assert (found.height, found.width, found.resize, found.resize_to) == expected
    assert found.mean == (127.0,) * 3


def test_contradicting_overrides_are_refused() -> None:
    config = ModelConfig(base="timm/tf_efficientnet_lite0", input=InputOverride(resize="squash", resize_to=256))
    with pytest.raises(UsageError, match="resize_to 256"):
        describe(config)


def test_unknown_architecture_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match="tf_eficientnet_lite0") as caught:
        describe(ModelConfig(base="timm/tf_eficientnet_lite0"))
    assert caught.value.hint is not None
    assert "timm/tf_efficientnet_lite0" in caught.value.hint


def test_describing_imports_no_training_library() -> None:
    code = (
        "import sys; from edgeft.models.sources import describe; from edgeft.models.config import ModelConfig\n"
        "describe(ModelConfig(base='timm/tf_efficientnet_lite0'))\n"
        "print(sorted({'torch', 'timm', 'torchvision'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_takes_other_sizes_though_its_library_doubts_it_is_asked() -> None:
    found = describe(ModelConfig(base="timm/xcit_nano_12_p16_224", input=InputOverride(height=112, width=112)))
    assert (found.height, found.width) == (112, 112)


@pytest.mark.parametrize("base", ["timm/vit_tiny_patch16_224", "torchvision/vit_b_16"])
def test_a_network_of_patches_takes_images_of_its_own_size_alone(base: str) -> None:
    own = describe(ModelConfig(base=base, input=InputOverride(height=224, width=224)))
    assert (own.height, own.width) == (224, 224)
    with pytest.raises(UsageError, match=f"{base} takes no images of 160 x 160 pixels, its own are 224"):
        describe(ModelConfig(base=base, input=InputOverride(height=160, width=160)))
