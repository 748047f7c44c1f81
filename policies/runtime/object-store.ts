import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fetchTrusting } from '@somagent/kit';
import { AwsV4Signer } from 'aws4fetch';

/** An object of the store. */
export interface StoredObject {
  readonly content: Buffer;
  readonly etag: string;
}

/** Options of {@link ObjectStoreBucket}. */
export interface ObjectStoreOptions {
  /** Address of the bucket: `https://host:port/bucket`. */
  readonly url: string;
  /** Folder with the files `username` (access key) and `password` (secret key); read for each request. */
  readonly credentialsDir: string;
  /** The authority that the server's certificate is verified against. */
  readonly caFile: string;
  /** Time that one request may take, milliseconds. @default 5000 */
  readonly timeoutMs?: number;
}

/** One bucket of an S3 store, by its plain REST API. Source: https://docs.aws.amazon.com/AmazonS3/latest/API/ */
export class ObjectStoreBucket {
  readonly #options: ObjectStoreOptions;
  readonly #fetch: typeof fetch;

  constructor(options: ObjectStoreOptions) {
    this.#options = options;
    this.#fetch = fetchTrusting(options.caFile);
  }

  /** The object; `unchanged` when it still has the ETag; undefined when there is none. */
  async get(key: string, etag?: string): Promise<StoredObject | 'unchanged' | undefined> {
    const response = await this.#send('GET', key, etag === undefined ? {} : { 'if-none-match': etag });
    if (response.status === 304) return 'unchanged';
    if (response.status === 404) return undefined;
    await this.#expect(response, `GET ${key}`);
    return { content: Buffer.from(await response.arrayBuffer()), etag: response.headers.get('etag') ?? '' };
  }

  /** Writes an object. */
  async put(key: string, content: Buffer, contentType: string): Promise<void> {
    const response = await this.#send('PUT', key, { 'content-type': contentType }, content);
    await this.#expect(response, `PUT ${key}`);
    await response.arrayBuffer();
  }

  async #send(method: string, key: string, headers: Record<string, string>, body?: Buffer): Promise<Response> {
    const { url, credentialsDir, timeoutMs = 5000 } = this.#options;
    const read = (name: string) => readFileSync(join(credentialsDir, name), 'utf8').trim();
    const signed = await new AwsV4Signer({
      method,
      url: `${url}/${key}`,
      headers,
      ...(body && { body: new Uint8Array(body) }),
      accessKeyId: read('username'),
      secretAccessKey: read('password'),
      service: 's3',
      region: 'us-east-1',
    }).sign();
    return this.#fetch(signed.url, {
      method,
      headers: Object.fromEntries(signed.headers),
      ...(body && { body: new Uint8Array(body) }),
      signal: AbortSignal.timeout(timeoutMs),
    });
  }

  /** @throws Error with the code of the store's own error document, never with a header. */
  async #expect(response: Response, what: string): Promise<void> {
    if (response.ok) return;
    const code = /<Code>(\w+)<\/Code>/.exec(await response.text())?.[1] ?? 'no code';
    throw new Error(`object store: ${what} answered ${response.status} (${code})`);
  }
}
