"""Networks, one paper per file, under the contract of `madgnet_bench.contracts.SegmentationNetwork`."""
