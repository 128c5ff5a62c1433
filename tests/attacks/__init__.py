"""What somebody with bad intentions would try."""
