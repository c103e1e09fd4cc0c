"""What several tests share: images, data sets, models, a browser."""
