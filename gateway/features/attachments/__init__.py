"""Files that messages refer to: uploads kept here, files fetched from elsewhere, and the check of what a message claims."""
