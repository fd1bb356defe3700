"""The flow path: requests and responses inside mitmproxy's HTTP layers."""
