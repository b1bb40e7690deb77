"""The CUDA kernels beside cuDNN, PyTorch and Captum, on the device: `make gpu PART=bench`.

Method: each contender is captured into a CUDA graph that goes once through enough sets of buffers to leave the cache
behind (180 MB); graphs are replayed in turn, 60 times after 3 that do not count, and the events around each replay give
one sample. Whole training steps and projections are timed by the clock, as a user runs them. Data are random. Before
anything is timed, each contender's result is compared with float64: one whose error is above its precision's bound is
left out, as is one that raises or that there is no time to compile; the row says why. TF32 is like with like. Ceilings
of the same run: what a copy moves, and what the library's matrix product computes in each precision. Shown are medians
with the 10th and 90th percentile; the file has all samples. Ratio = fastest peer / fastest of ours. The clocks are
read, once a second, and never set.
"""
