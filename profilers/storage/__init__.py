"""Storage: how fast data can be read from where it lies, what that costs a training, and a form that is read faster."""
