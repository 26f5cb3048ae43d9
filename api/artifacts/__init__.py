"""Report, contact sheet and reward curve of a job."""
