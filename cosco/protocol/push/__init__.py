"""The push protocol without IO: what a sender and a receiver of frames say next."""
