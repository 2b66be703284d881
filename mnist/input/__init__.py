"""Read datasets; choose and augment the images of a batch."""
