import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ADMIN, type Node, serverProperties } from '../../../constructs/kafka/server-properties.ts';
import { type KafkaPrograms, kafkaPrograms } from '../../../images/stage/kafka.ts';
import { createAuthority, issueCertificate, type KeyPair } from '../secrets/certificates.ts';
import type { Credentials } from '../settings.ts';
import { waitFor } from '../wait.ts';

const brokerName = 'kafka-broker';
const clusterId = 'c29tYWdlbnQtdGVzdC0wMQ';
const image = fileURLToPath(new URL('../../../images/kafka/', import.meta.url));
/** Four of them are processor time; the rest is for machines that do more than this test. */
const startSeconds = 180;

/** How many nodes a test needs. */
export interface TestKafkaOptions {
  /** One starts faster and keeps one copy; three keep three copies, two of them in step. @default 1 */
  readonly nodes?: 1 | 3;
}

/**
 * A real Kafka of its own for one test file, with the settings of production: a temporary folder, loopback, random
 * ports, TLS, SCRAM-SHA-512, rights denied by default.
 */
export interface TestKafka {
  /** `host:port` of the clients' listener of each node. */
  readonly brokers: readonly string[];
  /** May do everything: creates topics, credentials and rights. */
  readonly admin: Credentials;
  /** PEM of the authority that signed the servers' certificates, and the file that holds it. */
  readonly ca: string;
  readonly caFile: string;
  /** A folder of the test, removed by stop. */
  readonly folder: string;
  /** Copies of each partition that a topic can have here. */
  readonly copies: number;
  /** `host:port` of the listener that only nodes are admitted to. */
  brokersListener(node: number): string;
  /**
   * Writes a credentials folder (files username and password), as KAFKA_CREDENTIALS_DIR wants it.
   * @returns its path, in the folder of the test
   */
  credentialsFolder(credentials: Credentials, name?: string): Promise<string>;
  /** Everything that a node has logged. */
  log(node: number): Promise<string>;
  /** What a node answers to the kubelet's question whether it may get traffic. */
  ready(node: number): Promise<boolean>;
  /** Issues the nodes' certificate anew, as the renewal Job does. */
  renewCertificate(): Promise<KeyPair>;
  /** A client's certificate of the same authority, as other products of a region have one. */
  clientCertificate(commonName: string): Promise<KeyPair>;
  /** Ends a node without warning (SIGKILL). */
  kill(node: number): Promise<void>;
  /** Starts a node that was ended, on its own log, and waits until it is ready. */
  start(node: number): Promise<void>;
  /** Ends all nodes and removes the folder; nothing is left after it, whatever state the nodes are in. */
  stop(): Promise<void>;
}

/** Starts a cluster and waits until every node is in the quorum and serves. */
export async function startKafka({ nodes = 1 }: TestKafkaOptions = {}): Promise<TestKafka> {
  const folder = await mkdtemp(join(tmpdir(), 'somagent-kafka-'));
  const programs = await kafkaPrograms({ folder: image, log: join(folder, 'stage.log') });
  const authority = await createAuthority('test authority');
  const cluster = new RunningKafka({ folder, programs, authority, nodes: await reserveNodes(nodes) });
  try {
    await cluster.prepare();
    await Promise.all(cluster.nodes.map(({ id }) => cluster.start(id)));
  } catch (error) {
    await cluster.stop();
    throw error;
  }
  return cluster;
}

interface TestNode extends Node {
  readonly health: number;
}

interface Parts {
  readonly folder: string;
  readonly programs: KafkaPrograms;
  readonly authority: KeyPair;
  readonly nodes: readonly TestNode[];
}

class RunningKafka implements TestKafka {
  readonly admin = { username: ADMIN, password: 'a-password-of-this-test-only' };
  readonly folder: string;
  readonly ca: string;
  readonly caFile: string;
  readonly copies: number;
  readonly nodes: readonly TestNode[];
  readonly brokers: readonly string[];
  readonly #authority: KeyPair;
  readonly #programs: KafkaPrograms;
  readonly #running = new Map<number, ChildProcess>();

  constructor({ folder, programs, authority, nodes }: Parts) {
    this.folder = folder;
    this.ca = authority.certificate;
    this.caFile = join(folder, 'ca.crt');
    this.copies = nodes.length;
    this.nodes = nodes;
    this.brokers = nodes.map(({ host, ports }) => `${host}:${ports.clients}`);
    this.#authority = authority;
    this.#programs = programs;
    // A test runner that is ended must not leave servers behind.
    process.on('exit', this.#killAll);
  }

  async prepare(): Promise<void> {
    await writeFile(this.caFile, this.ca);
    await this.#writeFolder('admin', { ...this.admin });
    await this.renewCertificate();
    for (const node of this.nodes) {
      await writeFile(join(this.folder, `node-${node.id}.properties`), this.#properties(node));
    }
  }

  async renewCertificate(): Promise<KeyPair> {
    const leaf = await issueCertificate(this.#authority, {
      commonName: brokerName,
      dnsNames: ['localhost'],
      ipAddresses: ['127.0.0.1'],
      usages: ['server', 'client'],
    });
    await this.#writeFolder('tls', { 'tls.crt': leaf.certificate, 'tls.key': leaf.key, 'ca.crt': this.ca });
    return leaf;
  }

  clientCertificate(commonName: string): Promise<KeyPair> {
    return issueCertificate(this.#authority, { commonName, dnsNames: [], ipAddresses: [], usages: ['client'] });
  }

  brokersListener(node: number): string {
    const { host, ports } = this.#node(node);
    return `${host}:${ports.brokers}`;
  }

  credentialsFolder(credentials: Credentials, name = `credentials-${credentials.username}`): Promise<string> {
    return this.#writeFolder(name, { ...credentials });
  }

  log(node: number): Promise<string> {
    return readFile(this.#logFile(node), 'utf8');
  }

  async ready(node: number): Promise<boolean> {
    const response = await fetch(`http://127.0.0.1:${this.#node(node).health}/readyz`).catch(() => undefined);
    return response?.ok ?? false;
  }

  async start(id: number): Promise<void> {
    const node = this.#node(id);
    const output = createWriteStream(this.#logFile(id), { flags: 'a' });
    await once(output, 'open');
    const child = spawn('java', this.#arguments(node), {
      env: this.#environment(node),
      stdio: ['ignore', output, output],
    });
    output.close();
    this.#running.set(id, child);
    await waitFor({ name: `Kafka node ${id}`, address: this.brokers[id] ?? '', fix: '' }, () => this.#probe(id), {
      seconds: startSeconds,
    }).catch(async (error: Error) => {
      throw new Error(`${error.message}\n${(await this.log(id)).slice(-3000)}`);
    });
  }

  async kill(id: number): Promise<void> {
    await this.#end(id, 'SIGKILL');
  }

  async stop(): Promise<void> {
    // A quorum that is going away has nobody to hand over to: an orderly end would only wait.
    await Promise.all(this.nodes.map(({ id }) => this.#end(id, 'SIGKILL')));
    process.off('exit', this.#killAll);
    await rm(this.folder, { recursive: true, force: true });
  }

  readonly #killAll = (): void => {
    for (const child of this.#running.values()) child.kill('SIGKILL');
  };

  async #end(id: number, signal: NodeJS.Signals): Promise<void> {
    const child = this.#running.get(id);
    this.#running.delete(id);
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill(signal);
    await ended;
  }

  async #probe(id: number): Promise<void> {
    const child = this.#running.get(id);
    if (child?.exitCode !== null) throw new Error(`node ${id} has ended with code ${child?.exitCode}`);
    if (!(await this.ready(id))) throw new Error('not ready');
  }

  #node(id: number): TestNode {
    const node = this.nodes[id];
    if (node === undefined) throw new Error(`no node ${id}: there are ${this.nodes.length}`);
    return node;
  }

  #properties(node: TestNode): string {
    return serverProperties({
      nodes: this.nodes,
      self: node,
      bind: '127.0.0.1',
      brokerName,
      certificateFolder: join(this.folder, 'tls'),
      dataFolder: join(this.folder, `data-${node.id}`),
      replication: { copies: this.copies, inSync: this.copies === 1 ? 1 : 2 },
    });
  }

  #arguments({ id }: TestNode): string[] {
    return [
      ...['-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-Xms64m', '-Xmx192m', '-Xshare:auto'],
      `-Djava.io.tmpdir=${this.folder}`,
      `-Dlog4j2.configurationFile=${join(image, 'log4j2.properties')}`,
      ...['-cp', `${this.#programs.classes}:${join(this.#programs.jars, '*')}`, 'Broker'],
      join(this.folder, `node-${id}.properties`),
    ];
  }

  #environment({ id, health }: TestNode): NodeJS.ProcessEnv {
    return {
      PATH: process.env.PATH,
      NODE_ID: String(id),
      CLUSTER_ID: clusterId,
      ADMIN_DIR: join(this.folder, 'admin'),
      HEALTH_PORT: String(health),
    };
  }

  #logFile(id: number): string {
    return join(this.folder, `node-${id}.log`);
  }

  async #writeFolder(name: string, files: Readonly<Record<string, string>>): Promise<string> {
    const path = join(this.folder, name);
    await mkdir(path, { recursive: true });
    for (const [file, text] of Object.entries(files)) await writeFile(join(path, file), text, { mode: 0o600 });
    return path;
  }
}

/** Ports that are free now, all held open until the last one is known, so that none is given twice. */
async function reserveNodes(count: number): Promise<readonly TestNode[]> {
  const probes = Array.from({ length: count * 4 }, () => createServer());
  const numbers = await Promise.all(probes.map(listen));
  await Promise.all(probes.map((probe) => new Promise((done) => probe.close(done))));
  return Array.from({ length: count }, (_, id) => {
    const [clients = 0, brokers = 0, controllers = 0, health = 0] = numbers.slice(id * 4);
    return { id, host: '127.0.0.1', ports: { clients, brokers, controllers }, health };
  });
}

async function listen(probe: ReturnType<typeof createServer>): Promise<number> {
  probe.listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const address = probe.address();
  if (address === null || typeof address === 'string') throw new Error('no free port on 127.0.0.1');
  return address.port;
}
