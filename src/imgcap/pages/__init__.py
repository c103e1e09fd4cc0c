"""The HTML pages: gallery and scores."""
