"""Image files of other formats, and the digits in them."""
