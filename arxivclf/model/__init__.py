"""The model: its folder, its encoder, the device it runs on, the labels it gives."""
