"""The forwarder's half of a link: connects, asks what is stored, sends within the window, carries out the answers."""
