import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { endProcess } from '@somagent/bootstrap/testing/processes.ts';
import { waitFor } from '@somagent/bootstrap/wait.ts';
import { Connection } from '@temporalio/client';
import { toolPath } from '../../../cluster/toolchain.ts';

/** A real Temporal server of its own for one test file: all four services in one process, on loopback, in memory. */
export interface TestTemporal {
  /** `host:port` of the frontend. */
  readonly address: string;
  readonly namespace: string;
  stop(): Promise<void>;
}

/** Path of the server's program, built by the toolchain. */
export const temporalProgram = (): string => toolPath('temporal-server');

const namespace = 'somagent';
const roles = ['frontend', 'history', 'matching', 'worker'] as const;

/** Starts the server, registers the namespace and waits until it takes work. */
export async function startTemporal(): Promise<TestTemporal> {
  const folder = await mkdtemp(join(tmpdir(), 'somagent-temporal-'));
  const ports = await freePorts(2 * roles.length);
  // JSON is YAML.
  await writeFile(join(folder, 'temporal.yaml'), JSON.stringify(configuration(ports, folder)));
  await writeFile(join(folder, 'dynamic.yaml'), '{}');
  const child = spawn(temporalProgram(), ['--config-file', join(folder, 'temporal.yaml'), 'start'], {
    stdio: 'ignore',
    cwd: folder,
  });
  const address = `127.0.0.1:${ports[0]}`;
  const stop = async () => {
    await endProcess(child);
    await rm(folder, { recursive: true, force: true });
  };
  try {
    await waitFor({ name: 'Temporal', address, fix: 'start it by hand and read its log' }, () => register(address), {
      seconds: 60,
    });
    return { address, namespace, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function register(address: string): Promise<void> {
  const connection = await Connection.connect({ address, connectTimeout: 2000 });
  try {
    const { workflowService } = connection;
    await workflowService
      .registerNamespace({ namespace, workflowExecutionRetentionPeriod: { seconds: 86_400 as never } })
      .catch((error: unknown) => {
        if (!String(error).includes('already')) throw error;
      });
    // Other parts of the server learn of a namespace a moment after it is registered.
    await workflowService.listWorkflowExecutions({ namespace });
  } finally {
    await connection.close();
  }
}

function configuration(ports: readonly number[], folder: string) {
  const store = (name: string) => ({
    sql: {
      pluginName: 'sqlite',
      databaseName: name,
      connectAddr: 'localhost',
      connectProtocol: 'tcp',
      connectAttributes: { mode: 'memory', cache: 'private' },
      maxConns: 1,
      maxIdleConns: 1,
      maxConnLifetime: '1h',
    },
  });
  const rpc = (index: number) => ({
    rpc: { grpcPort: ports[2 * index], membershipPort: ports[2 * index + 1], bindOnLocalHost: true },
  });
  return {
    log: { stdout: true, level: 'error' },
    persistence: {
      defaultStore: 'default',
      visibilityStore: 'visibility',
      numHistoryShards: 1,
      datastores: { default: store('default'), visibility: store('default') },
    },
    global: { membership: { maxJoinDuration: '30s', broadcastAddress: '127.0.0.1' } },
    services: Object.fromEntries(roles.map((role, index) => [role, rpc(index)])),
    clusterMetadata: {
      enableGlobalNamespace: false,
      failoverVersionIncrement: 10,
      masterClusterName: 'active',
      currentClusterName: 'active',
      clusterInformation: {
        active: {
          enabled: true,
          initialFailoverVersion: 1,
          rpcName: 'frontend',
          rpcAddress: `127.0.0.1:${ports[0]}`,
        },
      },
    },
    dcRedirectionPolicy: { policy: 'noop' },
    publicClient: { hostPort: `127.0.0.1:${ports[0]}` },
    dynamicConfigClient: { filepath: join(folder, 'dynamic.yaml'), pollInterval: '60s' },
  };
}

async function freePorts(count: number): Promise<number[]> {
  const probes = Array.from({ length: count }, () => createServer());
  await Promise.all(probes.map((probe) => new Promise<void>((done) => probe.listen(0, '127.0.0.1', done))));
  const ports = probes.map((probe) => {
    const address = probe.address();
    if (address === null || typeof address === 'string') throw new Error('no free port on 127.0.0.1');
    return address.port;
  });
  await Promise.all(probes.map((probe) => new Promise((done) => probe.close(done))));
  return ports;
}
