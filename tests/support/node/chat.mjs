// A program that somebody has: it reads nothing but its environment. With an argument it streams.
import OpenAI from 'openai'

const stream = process.argv.includes('stream')
const client = new OpenAI()
const reply = await client.chat.completions.create({
  model: 'gpt-4', messages: [{ role: 'user', content: 'Hello' }], stream,
})
if (stream) {
  for await (const chunk of reply) console.log(chunk.choices[0].delta.content)
} else {
  console.log(reply.choices[0].message.content)
}
