"""The onnx package's own tests of our operators that do not run here, each with its reason.

The list of reasons is closed: a case that fails for any other one fails the suite. A case that is
listed and would pass fails it too.
"""

from __future__ import annotations

REASONS = {
    "rank other than 4": "its tensors have more places than rows and columns, or matrix products of stacks of matrices",
    "integer or double dtype": "it computes with integers",
    "training mode": "it runs in training mode, or asks for a training mask",
    "interpolation mode": "cubic interpolation, antialiasing or crop-and-resize",
    "no tensor": "its values are sequences or optionals: the one reason beyond operators on arrays",
}

OPERATORS = frozenset(
    "Add AveragePool BatchNormalization Clip Concat Constant ConstantOfShape Conv ConvTranspose Div Dropout "
    "Flatten Gemm GlobalAveragePool GlobalMaxPool Identity LRN LeakyRelu LogSoftmax MatMul MaxPool MaxUnpool Mul "
    "PRelu Pad ReduceMean Relu Reshape Resize Sigmoid Slice Softmax Split Squeeze Sub Sum Tanh Transpose "
    "Unsqueeze Upsample".split())

_CASES = {
    "rank other than 4": """
        averagepool_3d_default
        averagepool_3d_dilations_small
        averagepool_3d_dilations_large_count_include_pad_is_0_ceil_mode_is_True
        averagepool_3d_dilations_large_count_include_pad_is_0_ceil_mode_is_False
        averagepool_3d_dilations_large_count_include_pad_is_1_ceil_mode_is_True
        averagepool_3d_dilations_large_count_include_pad_is_1_ceil_mode_is_False
        convtranspose_3d
        matmul_3d
        matmul_4d
        matmul_bcast
        matmul_1d_3d
        maxpool_3d_default
        maxpool_3d_dilations
        maxpool_3d_dilations_use_ref_impl
        maxpool_3d_dilations_use_ref_impl_large
    """,
    "training mode": """
        batchnorm_example_training_mode
        batchnorm_epsilon_training_mode
        dropout_default_mask
        dropout_default_mask_ratio
        training_dropout_default
        training_dropout_default_mask
        training_dropout
        training_dropout_mask
        training_dropout_zero_ratio
        training_dropout_zero_ratio_mask
    """,
    "integer or double dtype": """
        clip_default_int8_min
        clip_default_int8_max
        clip_default_int8_inbounds
        maxpool_2d_uint8
        edge_pad
        reflect_pad
        wrap_pad
    """,
    "no tensor": """
        identity_sequence
        identity_opt
    """,
    "interpolation mode": """
        resize_upsample_scales_cubic
        resize_upsample_scales_cubic_align_corners
        resize_downsample_scales_cubic
        resize_downsample_scales_cubic_align_corners
        resize_upsample_sizes_cubic
        resize_downsample_sizes_cubic
        resize_upsample_scales_cubic_A_n0p5_exclude_outside
        resize_downsample_scales_cubic_A_n0p5_exclude_outside
        resize_upsample_scales_cubic_asymmetric
        resize_tf_crop_and_resize
        resize_tf_crop_and_resize_extrapolation_value
        resize_downsample_scales_linear_antialias
        resize_downsample_sizes_linear_antialias
        resize_downsample_scales_cubic_antialias
        resize_downsample_sizes_cubic_antialias
        resize_tf_crop_and_resize_axes_2_3
        resize_tf_crop_and_resize_axes_3_2
    """,
}

# Reason by case.
EXCLUDED: dict[str, str] = {f"test_{name}": reason for reason, names in _CASES.items() for name in names.split()}
