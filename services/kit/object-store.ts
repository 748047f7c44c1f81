import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { AwsV4Signer } from 'aws4fetch';
import { fetchTrusting } from './tls.ts';

/** Options of {@link ObjectStoreClient}. */
export interface ObjectStoreOptions {
  /** Address of the server: `https://host:port`; of the bucket for {@link ObjectStoreBucket}: `https://host:port/bucket`. */
  readonly url: string;
  /** Folder with the files `username` (access key) and `password` (secret key); read for each request. */
  readonly credentialsDir: string;
  /** The authority that the server's certificate is verified against. */
  readonly caFile: string;
  /** Time that one request may take, milliseconds. @default 5000 */
  readonly timeoutMs?: number;
}

/** A request of the store's REST API. */
export interface ObjectStoreRequest {
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Buffer;
}

/** The store refused a request. */
export class ObjectStoreError extends Error {
  /** Status of HTTP. */
  readonly status: number;
  /** The store's own code, such as `NoSuchKey`. */
  readonly code: string;

  constructor(what: string, status: number, code: string) {
    super(`object store: ${what} answered ${status} (${code})`);
    this.name = 'ObjectStoreError';
    this.status = status;
    this.code = code;
  }
}

/** Signed requests to an S3 store. Source: https://docs.aws.amazon.com/AmazonS3/latest/API/ */
export class ObjectStoreClient {
  readonly #options: ObjectStoreOptions;
  readonly #fetch: typeof fetch;

  constructor(options: ObjectStoreOptions) {
    this.#options = options;
    this.#fetch = fetchTrusting(options.caFile);
  }

  /** Sends a request to the path below the address, whatever the answer. @throws Error when there is none in time. */
  async send(method: string, path: string, { headers = {}, body }: ObjectStoreRequest = {}): Promise<Response> {
    const { url, credentialsDir, timeoutMs = 5000 } = this.#options;
    const read = (name: string) => readFileSync(join(credentialsDir, name), 'utf8').trim();
    const content = body === undefined ? undefined : new Uint8Array(body);
    const signed = await new AwsV4Signer({
      method,
      url: `${url}${path}`,
      // The body is signed too; by default this library leaves it out for S3.
      headers: { ...headers, 'x-amz-content-sha256': sha256(body ?? Buffer.alloc(0)) },
      ...(content && { body: content }),
      accessKeyId: read('username'),
      secretAccessKey: read('password'),
      service: 's3',
      region: 'us-east-1',
    }).sign();
    return this.#fetch(signed.url, {
      method,
      headers: Object.fromEntries(signed.headers),
      ...(content && { body: content }),
      signal: AbortSignal.timeout(timeoutMs),
    });
  }

  /** Sends a request that must succeed. @throws ObjectStoreError with the code of the store's own error document. */
  async expect(method: string, path: string, request?: ObjectStoreRequest): Promise<Response> {
    const response = await this.send(method, path, request);
    if (!response.ok) throw await refusal(`${method} ${path}`, response);
    return response;
  }
}

async function refusal(what: string, response: Response): Promise<ObjectStoreError> {
  const code = /<Code>(\w+)<\/Code>/.exec(await response.text())?.[1] ?? 'no code';
  return new ObjectStoreError(what, response.status, code);
}

/** An object of the store. */
export interface StoredObject {
  readonly content: Buffer;
  readonly etag: string;
}

/** One bucket of an S3 store. */
export class ObjectStoreBucket {
  readonly #client: ObjectStoreClient;

  constructor(options: ObjectStoreOptions) {
    this.#client = new ObjectStoreClient(options);
  }

  /** The object; `unchanged` when it still has the ETag; undefined when there is none. */
  async get(key: string, etag?: string): Promise<StoredObject | 'unchanged' | undefined> {
    const headers = etag === undefined ? {} : { 'if-none-match': etag };
    const response = await this.#client.send('GET', `/${key}`, { headers });
    if (response.status === 304) return 'unchanged';
    if (response.status === 200) {
      return { content: Buffer.from(await response.arrayBuffer()), etag: response.headers.get('etag') ?? '' };
    }
    const error = await refusal(`GET ${key}`, response);
    if (error.code === 'NoSuchKey') return undefined;
    throw error;
  }

  /** Writes an object. */
  async put(key: string, content: Buffer, contentType: string): Promise<void> {
    const response = await this.#client.expect('PUT', `/${key}`, {
      headers: { 'content-type': contentType },
      body: content,
    });
    await response.arrayBuffer();
  }
}

function sha256(content: Buffer): string {
  return createHash('sha256').update(content).digest('hex');
}
