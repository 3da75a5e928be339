"""The names that both sides use in messages of the Open Inference Protocol."""

#: Tensors: what the edge sends, the scales that go with it as INT8, and what the cloud answers.
FEATURES, SCALES, OUTPUTS = "mixed_features", "mixed_scales", "mixed_outputs"

#: Response parameter: how long the cloud computed for the batch that held the request, in nanoseconds.
COMPUTE_NS = "compute_ns"

#: Response parameter, and property of a model's metadata: which network the model is the middle of, see
#: `facemix.storage.fingerprint`. An edge that holds the ends of another network must not use the answer.
NETWORK = "network"

#: Property of a model's metadata: the datatypes of FEATURES that it takes, separated by commas.
DATATYPES_PROPERTY = "datatypes"

#: Trailing metadata of RESOURCE_EXHAUSTED: when to try again, in milliseconds (gRPC's name for it).
RETRY_AFTER = "grpc-retry-pushback-ms"
