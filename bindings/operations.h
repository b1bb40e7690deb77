// Every operation as a function of arrays: sizes come from the arrays' shapes, pointers go out to ops.h.
//
// The public functions in Python have checked the arguments; what is checked here keeps a wrong call
// from touching memory that is not its own. The list below is the only one: the Python module and
// the sanitizers' stand-alone program are both made from it.
#pragma once

#include "chains.h"
#include "convolution.h"
#include "normalization.h"
#include "pooling.h"
#include "training.h"

namespace zf::bindings {

template <class Define>
void operations(Define&& define) {
    define("convolution_forward", convolution_forward);
    define("convolution_input_gradient", convolution_input_gradient);
    define("convolution_weight_gradient", convolution_weight_gradient);
    define("linear_forward", linear_forward);
    define("linear_input_gradient", linear_input_gradient);
    define("max_pool", max_pool);
    define("check_switches", check_switches);
    define("switches_to_flat", switches_to_flat);
    define("switches_from_flat", switches_from_flat);
    define("max_unpool", max_unpool);
    define("convolution_pool", convolution_pool);
    define("unpool_filter", unpool_filter);
    define("average_pool", average_pool);
    define("average_pool_gradient", average_pool_gradient);
    define("global_average_pool", global_average_pool);
    define("global_average_pool_gradient", global_average_pool_gradient);
    define("map_maximum", map_maximum);
    define("global_max_pool_gradient", global_max_pool_gradient);
    define("response_norm", response_norm);
    define("response_norm_gradient", response_norm_gradient);
    define("contrast_norm", contrast_norm);
    define("contrast_norm_gradient", contrast_norm_gradient);
    define("scale_channels", scale_channels);
    define("batch_norm_training_gradient", batch_norm_training_gradient);
    define("channel_sum", channel_sum);
    define("channel_products", channel_products);
    define("relu", relu);
    define("relu_gradient", relu_gradient);
    define("relu_guided", relu_guided);
    define("add", add);
    define("dropout", dropout);
    define("convert", convert);
    define("copy_columns", copy_columns);
    define("pad_channels", pad_channels);
    define("clear_outside", clear_outside);
    define("softmax", softmax);
    define("softmax_cross_entropy", softmax_cross_entropy);
    define("softmax_gradient", softmax_gradient);
    define("softmax_cross_entropy_gradient", softmax_cross_entropy_gradient);
    define("sgd_step", sgd_step);
    define("adam_step", adam_step);
    define("renormalize_filters", renormalize_filters);
    define("sgd_filters", sgd_filters);
    define("guard_settings", guard_settings);
}

}  // namespace zf::bindings
