"""Options of `facemix train` for an experiment of a few seconds, and of a network for five people."""

SETTINGS = {
    "name": "tiny",
    "data.source": "synthetic",
    "data.people": 4,
    "data.photos": 10,
    "data.size": "[24,24]",
    "data.validation_share": 0.2,
    "data.augment.mirror": "true",
    "data.distort.rotation": 0.1,
    "model.options": "{width: 0.0625}",
    "mix.group_size": 4,
    "baseline.epochs": 3,
    "baseline.batch_size": 8,
    "mixed.epochs": 4,
    "mixed.batch_size": 8,
    "rounds": 2,
}
OPTIONS = [f"--{name}={value}" for name, value in SETTINGS.items()]
OF_RESNET = {"num_classes": 5, "in_channels": 1, "width": 0.0625, "activation": "prelu"}
