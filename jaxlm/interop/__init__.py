"""Models come and go: folders of Hugging Face in and out."""
