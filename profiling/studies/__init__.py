"""Studies: experiments with the package whose data, figures and pages can be made again by one command each."""
