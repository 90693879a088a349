//! The configuration file that operator, CSI plugin, CLI and mount hand to the client.
