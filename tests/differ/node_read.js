// What Node's llhttp makes of octets: cases as http_read.c has them, a line of JSON for each.
'use strict';
process.removeAllListeners('warning');
const {HTTPParser, methods} = require('_http_common');
const names = process.binding('http_parser').allMethods || methods;

function read(server, bytes) {
  const messages = [];
  let current = null;
  const parser = new HTTPParser();
  parser.initialize(server ? HTTPParser.REQUEST : HTTPParser.RESPONSE, {}, 1 << 20);
  let fields = [];
  let target = '';
  parser[HTTPParser.kOnHeaders | 0] = (headers, url) => { fields.push(...headers); target += url; };
  parser[HTTPParser.kOnHeadersComplete | 0] = (major, minor, headers, method, url, status) => {
    fields.push(...(headers || []));
    current = {method: server ? names[method] : '', target: url || target, status: status || 0,
               fields: fields.map(f => Buffer.from(f, 'latin1').toString('hex')), body: ''};
    fields = [];
    target = '';
    return 0;
  };
  parser[HTTPParser.kOnBody | 0] = body => { current.body += Buffer.from(body).toString('hex'); };
  parser[HTTPParser.kOnMessageComplete | 0] = () => {
    fields = [];
    target = '';
    if (server || current.status >= 200) messages.push(current);
    current = null;
  };
  let failed = null;
  const result = parser.execute(bytes);
  if (result instanceof Error) failed = result.code + ': ' + result.reason;
  if (failed === null && !server) {
    const end = parser.finish();
    if (end instanceof Error) failed = end.code + ': ' + end.reason;
  }
  return {messages, failed};
}

const input = require('fs').readFileSync(0);
const lines = [];
for (let at = 0; at < input.length;) {
  const server = input[at] === 0x71;
  const n = input.readUInt32LE(at + 1);
  lines.push(JSON.stringify(read(server, Buffer.from(input.subarray(at + 5, at + 5 + n)))));
  at += 5 + n;
}
process.stdout.write(lines.join('\n') + '\n');
