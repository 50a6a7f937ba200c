"""The networks of the coverage sweeps: which they are, and one of them made as if it had been trained."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from chase.models import build
from chase.models.foreign import torchvision_names
from chase.tracing import evaluating

TIMM = """
resnet50 convnext_tiny vit_small_patch16_224 deit_tiny_patch16_224 efficientnet_b0 mobilenetv3_large_100 regnety_008
swin_tiny_patch4_window7_224 mobilevit_s repvgg_a0 densenet121 hrnet_w18_small dm_nfnet_f0 resnest26d
eva02_tiny_patch14_224 efficientformer_l1 resnetv2_50 convnextv2_nano mixer_s16_224 poolformer_s12 ghostnet_100
mobilenetv4_conv_small cspdarknet53 res2net50_26w_4s coat_tiny
"""
"""The timm models of the study that Chase was designed from."""

TIMM_FAMILIES = """
beit_base_patch16_224 botnet26t_256 cait_xxs24_224 caformer_s18 coat_lite_tiny coatnet_pico_rw_224 coatnext_nano_rw_224
convformer_s18 convit_tiny convmixer_768_32 convnext_atto_rms convnext_zepto_rms_ols cpubone_nano crossvit_tiny_240
crossvit_9_dagger_240 cs3darknet_focus_s cs3darknet_s cspnext_tiny cspresnext50 csatv2 darknet17 davit_tiny
deit3_small_patch16_224 deit_tiny_distilled_patch16_224 densenetblur121d dla34 dla46x_c dla60_res2net dpn48b dpn68b
eca_botnext26ts_256 eca_halonext26ts eca_nfnet_l0 eca_vovnet39b ecaresnet26t edgenext_small edgenext_xx_small
efficientformerv2_s0 efficientnet_b0_gn efficientnet_b1_pruned efficientnet_cc_b0_4e efficientnetv2_rw_t efficientvim_m1
efficientvit_b0 efficientvit_l1 efficientvit_m0 ese_vovnet19b_dw ese_vovnet19b_slim fasternet_t0 fastvit_mci0
fastvit_sa12 fastvit_t8 fbnetc_100 fbnetv3_b focalnet_tiny_srf gcresnet33ts gcvit_xxtiny gernet_s ghostnetv2_100
ghostnetv3_050 gmixer_12_224 gmlp_ti16_224 halonet26t haloregnetz_b hardcorenas_a hgnet_tiny hgnetv2_b0 hiera_tiny_224
hieradet_small iformer_t inception_next_atto inception_resnet_v2 inception_v3 inception_v4 lambda_resnet26t lcnet_050
lcnetv2_small legacy_senet154 legacy_seresnext26_32x4d legacy_xception levit_128s levit_conv_128s lowformer_b0
mambaout_femto maxvit_pico_rw_256 maxvit_rmlp_pico_rw_256 maxxvit_rmlp_nano_rw_256 mixnet_s mnasnet_small
mobilenet_edgetpu_v2_xs mobilenetv1_100 mobilenetv2_050 mobilenetv3_small_050 mobilenetv4_hybrid_medium mobileone_s0
mobilevit_xxs mobilevitv2_050 mvitv2_tiny naflexvit_base_patch16_gap nasnetalarge nest_tiny nextvit_small nf_regnet_b0
nf_resnet26 nfnet_l0 pit_ti_224 pit_ti_distilled_224 pnasnet5large poolformerv2_s12 pvt_v2_b0 pvt_v2_b2_li rdnet_tiny
regnetv_040 regnetx_002 regnety_002 regnetz_b16 regnetz_c16 regnetz_040 repghostnet_050 repvit_m0_9 res2next50
resmlp_12_224 resnest14d resnest50d_4s2x40d resnet10t resnet18d resnet26t resnet33ts resnet50_gn resnet50c
resnet50d resnet51q resnetaa50 resnetblur18 resnetrs50 resnetv2_18 resnetv2_50d_evos resnetv2_50d_gn resnetv2_50x1_bit
resnext26ts resnext50_32x4d rexnet_100 rexnetr_100 samvit_base_patch16_224 sebotnet33ts_256 sedarknet21 selecsls42
semnasnet_075 sequencer2d_s seresnet18 seresnext26d_32x4d shvit_s1 skresnet18 skresnext50_32x4d spnasnet_100 starnet_s1
swiftformer_xs swin_s3_tiny_224 swinv2_cr_tiny_224 swinv2_cr_tiny_ns_224 swinv2_tiny_window8_256 tf_efficientnet_lite0
tf_efficientnetv2_b0 tf_mobilenetv3_small_minimal_100 tiny_vit_5m_224 tinynet_e tnt_s_patch16_224 tresnet_m
twins_pcpvt_small twins_svt_small vgg11 vgg11_bn visformer_tiny vit_pe_core_tiny_patch16_384
vit_relpos_small_patch16_224 vit_small_patch16_dinov3 vit_srelpos_small_patch16_224 vit_tiny_patch16_224
vit_tiny_r_s16_p8_224 vit_xsmall_patch16_clip_224 vitamin_small_224 volo_d1_224 vovnet39a wide_resnet50_2 xception41
xception41p xcit_nano_12_p16_224 xcit_tiny_12_p8_224
"""
"""One or a few small members of every further family of timm."""

ZOOS: dict[str, Callable[[], list[str]]] = {
    "torchvision": lambda: [f"torchvision:{name}" for name in torchvision_names()],
    "timm": lambda: [f"timm:{name}" for name in TIMM.split()],
    "timm-families": lambda: [f"timm:{name}" for name in TIMM_FAMILIES.split()],
}

SETTINGS = dict.fromkeys(("torchvision:googlenet", "torchvision:inception_v3"), {"aux_logits": True})
"""Constructor arguments: these two are tried with the auxiliary heads that run in training only."""

SIDES = (64, 128, 224, 256, 299)
"""Image sides to try, in pixels: most of the time goes into the proof in float64, so small is good."""

NOTHING = 1e-4  # what is smaller everywhere was meant as zero


@dataclass(frozen=True)
class Subject:
    """A network to try, with random weights that look trained, and an input [1, c, side, side] that it takes."""

    name: str
    model: nn.Module
    example: Tensor
    settings: dict[str, Any] = field(default_factory=dict)


def subject(name: str, *, sides: Sequence[int] = (), seed: int = 0) -> Subject:
    """The network `name`, built without pretrained weights, in evaluation mode; `sides` default to what suits it.

    Raises:
        Exception: whatever its constructor or forward pass raises, at the last side, if it takes none of them.
    """
    settings = SETTINGS.get(name, {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(name, **settings)
        perturb_(model, seed)
        *tried, last = sides or sides_for(name)
        for side in tried:
            with contextlib.suppress(Exception):  # too small for this network, in one of a hundred ways
                return Subject(name, model, _settle_(model, side), settings)
        return Subject(name, model, _settle_(model, last), settings)


def sides_for(name: str) -> tuple[int, ...]:
    """The image sides to try for a model, smallest first."""
    prefix, _, timm_name = name.partition(":")
    if prefix != "timm":
        return SIDES
    import timm

    config = timm.get_pretrained_cfg(timm_name)
    usual = int(config.input_size[-1])
    return (usual,) if config.fixed_input_size else (*(side for side in SIDES if side < usual), usual)


@torch.no_grad()
def perturb_(model: nn.Module, seed: int) -> None:
    """Random values, in place, for all that a constructor leaves at zero or constant: as after a training, nothing is
    zero, one or the identity by chance."""
    generator = torch.Generator().manual_seed(seed)
    tensor: Tensor
    for name, tensor in model.named_parameters():
        largest, constant = float(tensor.abs().max()), bool(tensor.min() == tensor.max())
        if constant or largest < NOTHING:
            scales = (constant and largest > 0) or (tensor.ndim == 1 and name.endswith(("weight", "gamma")))
            _fill_(tensor, scales, generator)
    for name, tensor in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            _fill_(tensor, name.endswith("var"), generator)


def _fill_(tensor: Tensor, scales: bool, generator: torch.Generator) -> None:
    if scales:
        tensor.uniform_(0.5, 1.5, generator=generator)
    else:
        tensor.normal_(0, 0.2, generator=generator)


@torch.no_grad()
def _settle_(model: nn.Module, side: int) -> Tensor:
    """Move the statistics of norms halfway to those of one batch of random images, so that activations neither fade
    nor explode in deep networks; one such image [1, 3, side, side]."""
    images = torch.randn(2, 3, side, side)
    with _momentum(model, 0.5), evaluating(model, training=True):
        model(images)
    model.eval()(images)
    return images[:1]


@contextlib.contextmanager
def _momentum(model: nn.Module, momentum: float) -> Iterator[None]:
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = momentum
    try:
        yield
    finally:
        for norm, old in zip(norms, before, strict=True):
            norm.momentum = old
