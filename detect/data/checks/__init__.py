"""What is wrong or worth knowing of a data set: annotations, image headers, splits, duplicates."""
