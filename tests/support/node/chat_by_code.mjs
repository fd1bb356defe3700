// The same program with a proxy of its own: what has to change where NODE_OPTIONS may not be set.
import OpenAI from 'openai'
import { EnvHttpProxyAgent } from 'undici'

const client = new OpenAI({ fetchOptions: { dispatcher: new EnvHttpProxyAgent() } })
const stream = await client.chat.completions.create({
  model: 'gpt-4', messages: [{ role: 'user', content: 'Hello' }], stream: true,
})
for await (const chunk of stream) console.log(chunk.choices[0].delta.content)
