"""One training of the codec: options, stages, crops, schedule, step, validation."""
