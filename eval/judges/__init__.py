"""What turns clips into scores: recognisers, classifiers, networks."""
