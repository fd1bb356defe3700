import hmac, hashlib, time, requests
from urllib.parse import urlencode
CONNECTION_ID = 'conn_your_id'
SIGNING_SECRET = 'sk_your_secret'
def create_presigned_url(path, methods, paths, expires_in=None):
    expires = int(time.time()) + expires_in if expires_in else 0
    sorted_methods = ','.join(sorted(methods))
    sorted_paths = ','.join(sorted(paths))
    canonical = '\n'.join([
        'PRESIGN-HMAC-SHA256',
        CONNECTION_ID,
        str(expires),
        sorted_methods,
        sorted_paths,
    ])
    signature = hmac.new(
        SIGNING_SECRET.encode(),
        canonical.encode(),
        hashlib.sha256
    ).hexdigest()
    params = urlencode({
        'X-Presign-Expires': expires,
        'X-Presign-Methods': sorted_methods,
        'X-Presign-Paths': sorted_paths,
        'X-Presign-Signature': signature,
    })
    return f'https://presign.click/api/proxy/{CONNECTION_ID}/{path}?{params}'
# Create a URL that expires in 1 hour
url = create_presigned_url(
    path='v1/chat/completions',
    methods=['POST'],
    paths=['v1/chat/*'],
    expires_in=3600,
)
# Use it
response = requests.post(url, json={
    'model': 'gpt-4',
    'messages': [{'role': 'user', 'content': 'Hello'}]
})