import { createHash } from 'node:crypto';
import { request } from 'node:https';
import { AwsV4Signer } from 'aws4fetch';
import { type Forwarded, forward } from './forward.ts';
import { authorityPem, secretOf } from './session-api.ts';

const namespace = 'local-data';

/** The object store of the platform under test, as one of its users; disposing of it ends the way there. */
export interface ObjectStoreAccess extends AsyncDisposable {
  /** @throws Error when the store refuses */
  get(path: string): Promise<Buffer>;
  /** @throws Error when the store refuses */
  put(path: string, content: Buffer): Promise<void>;
}

/** Opens a way to the object store. @param user such as `policy-publisher` */
export async function objectStoreAs(user: string): Promise<ObjectStoreAccess> {
  const [way, { username, password }, ca] = await Promise.all([
    forward(namespace, 'object-store', 7070),
    secretOf(`object-store-user-${user}`, namespace),
    authorityPem(),
  ]);
  const send = async (method: string, path: string, content: Buffer = Buffer.alloc(0)): Promise<Buffer> => {
    const { headers } = await new AwsV4Signer({
      ...{ method, url: `https://object-store:7070${path}`, service: 's3', region: 'us-east-1' },
      headers: { 'x-amz-content-sha256': createHash('sha256').update(content).digest('hex') },
      body: new Uint8Array(content),
      ...{ accessKeyId: username, secretAccessKey: password },
    }).sign();
    const named = { ...Object.fromEntries(headers), host: 'object-store:7070', 'content-length': content.length };
    return exchange(way, { ca, method, path, headers: named }, content);
  };
  return {
    get: (path) => send('GET', path),
    put: async (path, content) => void (await send('PUT', path, content)),
    [Symbol.asyncDispose]: () => way[Symbol.asyncDispose](),
  };
}

type Sent = Pick<Parameters<typeof request>[1], 'ca' | 'method' | 'path' | 'headers'>;

function exchange({ port }: Forwarded, sent: Sent, content: Buffer): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    // The certificate has the name that pods know it by.
    const options = { ...sent, host: '127.0.0.1', port, servername: 'object-store', timeout: 30_000 };
    const outgoing = request(options, (incoming) => {
      const pieces: Buffer[] = [];
      incoming.on('data', (piece: Buffer) => pieces.push(piece)).on('error', reject);
      incoming.on('end', () => {
        const answer = Buffer.concat(pieces);
        if (incoming.statusCode === 200) resolve(answer);
        else reject(new Error(`${sent.method} ${sent.path}: status ${incoming.statusCode} ${answer}`));
      });
    });
    outgoing.on('timeout', () => outgoing.destroy(new Error(`${sent.path}: nothing for 30 s`)));
    outgoing.on('error', reject).end(content);
  });
}
