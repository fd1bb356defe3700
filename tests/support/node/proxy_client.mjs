// Stands in for @motioness/proxy-client, which the published recipe imports: the URL shape of its documentation.
export function buildProxyUrl({ origin, projectKey, src, format = 'png', signature, exp }) {
  const encoded = Buffer.from(src).toString('base64url')
  return `${origin}/v1/${projectKey}/${encoded}.${format}?sig=${signature}&exp=${exp}`
}
